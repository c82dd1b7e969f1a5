"""What the path of a model means, and what its files say of themselves.

Not here: loading a model, which the server does.

``snapshots``      paths, names of a hub, files of GGUF
``embedded``       models that come with Garçon
``weights``        what weight files say, unread
``likeness``       in what two checkpoints differ besides their numbers
``quantised``      what packed weights need
``own_code``       checkpoints that bring code of their own
``adapters``       what a directory of an adapter may ask for
``configuration``  numbers that may differ from layer to layer
``multimodal``     models that read images, and their text part
``degrees``        by which degrees a model can be cut
"""
