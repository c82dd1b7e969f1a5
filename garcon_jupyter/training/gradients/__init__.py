"""The gradient of each datum of a batch, for every parameter, from what modules read and the gradients of what they wrote.

Not here: what is kept of them (``recording``), and how it lies on disk (``records``).

``capture``      hooks that keep what modules read, and the gradients of what they wrote
``layouts``      which positions of a batch belong to which datum
``rules``        from there to the gradients of products, tables and norms
``replay``       every other module is run again
``sites``        a gradient at one place of use, by its factors
``coverage``     whether what was seen is all of the gradient
``reading``      all of these, for a batch
``per_datum``    the gradients of a batch, by datum
``outliers``     the largest entries, exactly
``projections``  two-sided random projections
"""
