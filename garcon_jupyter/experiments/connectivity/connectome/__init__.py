"""The connectome of a model: of each neuron and head what it reads and writes most strongly, from the weights alone, on disk.

    connectome = experiments.connectome(rmodel, "smollm2.connectome")
    connectome = garcon.open_connectome("smollm2.connectome")       # later, without a server
    connectome.unit("layers.3.mlp.post_activation", 17).to_frame()

Not here: pictures of it (``display``), connections of a few units (``connections``), and what units do on a text (``atlas``).

``tables``  what is connected with what, and how much room it takes
``blocks``  the strongest connections of some layers, as functions of the weights
``making``  one block after the other, to disk
``pieces``  what each block found, on disk until all of them are there
``files``   a directory of plain arrays that are mapped, not read
"""

from __future__ import annotations
