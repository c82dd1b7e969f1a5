"""Loading a model, cutting it over ranks, and where the points of each architecture are.

Not here: hooks, requests, and what user code does with a value.

``config``              a configuration, and names of dtypes
``loading``             from a directory onto the ranks of a mesh
``sharding``            cutting a transformers model while it is loaded
``tensor_parallel``     how one module is cut over a group
``pipeline_parallel``   each rank keeps some of the layers, and stand-ins for the rest
``stages``              a stage of a pipeline, and stand-ins for what others hold
``fit``                 whether a model fits, and by which degrees it can be cut
``attending``           by whose function a model attends
``own_implementation``  a served model as transformers itself would run it
``first_layers``        the first layers whole, to hold a cut model against
``rotary``              rotary positions that depend on how long a text is
``shared_keys``         layers that read the keys and values of an earlier one
``adapters``            LoRA adapters, on for the length of a request
``current_weights``     which checkpoint is loaded, as launched or exchanged since
``weight_exchange``     the parameters of one checkpoint in place of another's
``account``             what became of a checkpoint's weights
``family``              what a family file declares
``family_notes``        what a reader of values should know, from a configuration
``binding``             a family bound to a loaded model
``family_files``        families of the user's own
``fused_rows``          which rows of a fused projection are those of one of its parts
``layer_kinds``         what mixes the tokens of each layer
``families``            one file for each architecture
``convert_gguf``        the command that converts a GGUF file, once
``gguf``                what such a file says, and its tensors
"""
