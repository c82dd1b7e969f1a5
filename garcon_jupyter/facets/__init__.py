"""The methods of a model that stand above what it is: pictures, runs, atlases.

Not here: anything that a script without a notebook needs for a pass.

``pictures``   the pictures that a served model makes of itself
``data_runs``  runs and atlases
``unit_features``  features of dictionaries and points from stores
``certificates``  the certificate
``experimenting``  experiments
``training_dictionaries``  dictionaries trained
"""
