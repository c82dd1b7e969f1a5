"""Experiments: what is computed on the server and returned as plain data.

Each runs clean passes and sends only what is drawn, a few numbers for each cell. None runs the probes that you
attached, and none leaves anything in your recordings.

They need no notebook and no widgets: ``lens.read_layers(rmodel, text)`` gives arrays to a script.

Not here: pictures (``widgets``), and how they are filled (``display``).

``clean_passes``   passes whose recordings are nobody else's business
``target_tokens``  the tokens that a picture is asked to follow
``token_metrics``  how surprising each token of a text was
``attention``      attention of a whole model, a layer or a glance at a time
``lens``           the logit lens
``patching``       sweeps of activation patching
``live_edits``     edits of a model while one types
``neurons``        a unit's values on some texts
"""
