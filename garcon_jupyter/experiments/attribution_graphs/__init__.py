"""Attribution graphs: how a prompt's tokens, latents and errors add up to each latent and to the logits, edge by edge.

Transcoders stand in for the MLPs. With attention patterns and the denominators of norms held as they are at the run, all that is
left between an active latent and a later one is linear, so what one adds to the other is a number (Dunefsky et al. 2024;
Ameisen et al. 2025).

Not here: attribution without dictionaries (``attribution``), what one latent does in all (``unit_effects``), and how a graph is
drawn (``display``).

``graph``          a prompt's graph
``transcoders``    which dictionaries stand for which MLP
``run``            the prompt as the model reads it: active latents, likely logits
``frozen_passes``  edges into many targets in one backward, through the held model
``adjacency``      edges by target and source: influence, total effect, scores
``pruning``        what of a graph is kept
``ablated_nodes``  a sample of nodes, ablated in the model itself
``viewer_files``   a graph in the JSON of circuit-tracer's and Neuronpedia's viewers
"""
