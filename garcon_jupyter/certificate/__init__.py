"""Certificates: every named point of a served model, held against what must hold between points and parameters.

All of it is asked of the model by ordinary requests, so that it is the same in this process, on a server, and over ranks.

Not here: where points are in a model (the server's families), and how a certificate looks (``display``).

``identities``          what holds, declared once: the table beside that of points
``mlp_identities``      the part of it that is about MLPs and experts
``mixer_identities``    the part of it that is about mixers which do not attend
``identity``            what an identity is
``formulas``            what a point is made of: sums, projections, norms
``attention_formulas``  of attention
``latent_formulas``     of latent attention
``mixer_formulas``      of mixers that do not attend
``mlp_formulas``        of MLPs and experts
``router_formulas``     of routers
``stream_formulas``     of the residual stream
``logits_formulas``     of logits
``values``              what a formula reads
``closeness``           how far a value may be off, by dtype
``evaluation``          identities, held against the values of one forward
``probes``              what is sent to the server
``passes``              the requests that are made
``edits``               what edits and gradients do
``dictionary_identities``  what holds between the points of a dictionary and its files, declared once
``dictionary_values``   what these read
``dictionary_examination``  a dictionary that is loaded, held against them
``layer_kinds``         which layers stand for which
``examination``         all of it, put together
``result``              what a certificate says
"""
