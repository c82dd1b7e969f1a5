"""A whole layer at once: its principal components, and maps on which like tokens, or like units, lie together.

Massive activations, a few tokens with a hundred times the norm of others, are named, and left out unless asked for.

Not here: directions that tell labels apart (``directions``).

``pca``         principal components of a point, from its covariance
``layout``      maps in two dimensions: PCA, t-SNE, UMAP
``embedding``   the methods that place dots, and what they need
``massive``     which tokens are massive, and how they are named
``apart``       a recorder: covariance with what may be massive kept apart
``sampled``     a recorder: whole vectors of tokens drawn by lot
``principal``   components and scores, with signs fixed
``neighbours``  trustworthiness of a map
"""
