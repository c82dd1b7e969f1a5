"""The experiment of a post, again: which texts of an encyclopedia moved which neurons of a small model.

*Training Process Transparency through Gradient Interpretability* (`2023 <https://www.lesswrong.com/posts/DtkA5jysFZGv7W4qP>`_) recorded a model of three layers while it
learned WikiText-2. Here the text is the encyclopedia that gensim tests itself with, a quarter of that.

    python -m examples.post           the whole: `make training`
    python -m examples.post --short   some minutes of it

``corpus``    the text: cleaned, cut into words, laid out as data
``model``     the model
``plants``    what is put into text and model so that the answer is known
``training``  the loop, recorded
``tables``    neurons with tokens, and what holding them at zero does
"""
