"""What can be asked of a served model in plain data: operations, each declared once.

An operation is a typed request, a function on a model, and a typed answer. Whatever door somebody comes through (HTTP, TypeScript, the
terminal, agents), it is the same table that is read: :data:`garcon_jupyter.operations.table.OPERATIONS`. No code travels in a request:
points, tokens, numbers, names that the owner registered, and a closed set of reductions.

Not here: how a request comes in and its answer goes out (``http_doors``, ``cli``).

``operation``    what an operation is, and what declares one
``table``        all of them
``plain_data``   what requests and answers are made of: arrays, tokens
``limits``       how much one request may ask for
``prompts``      texts and tokens that a request has
``readings``     what of a point's value is answered
``edits``        what a request changes in the model while it is run
``edited_model`` a model as experiments see it while edits hold
``keepers``      the probes that do both
``describing``   what a model is, what it has and lacks, and what it uses
``tokenizing``   texts to tokens and back
``passes``       forward, attention, generation
``gradients``    what a change of an activation does to the answer
``analyses``     experiments: lens, effects, attribution, patching
``parameters``   slices of weights
``unit_records`` what atlases say of units
``stored_explanations``  what language models have said of units
``working``      what takes long, and steering it
``failures``     errors as data, and as statuses of HTTP
``openapi``      the table as an OpenAPI document
"""
