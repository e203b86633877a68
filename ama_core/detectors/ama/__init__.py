"""The Adversarial Mirrored AutoEncoder (Somepalli et al., UAI 2021, arXiv 2003.10713): the paper, whole, in one folder."""
