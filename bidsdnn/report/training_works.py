"""Works that ablation and training are cited by."""

from __future__ import annotations

from bidsdnn.report.reference import Reference

TRAINING = (
    Reference("ablation", "inproceedings",
              ("Morcos, Ari S.", "Barrett, David G. T.", "Rabinowitz, Neil C.", "Botvinick, Matthew"), 2018,
              "On the importance of single directions for generalization",
              "International Conference on Learning Representations", "arXiv:1803.06959"),
    Reference("transfer", "inproceedings",
              ("Yosinski, Jason", "Clune, Jeff", "Bengio, Yoshua", "Lipson, Hod"), 2014,
              "How transferable are features in deep neural networks?",
              "Advances in Neural Information Processing Systems", "27, 3320-3328"),
    Reference("adam", "inproceedings", ("Kingma, Diederik P.", "Ba, Jimmy"), 2015,
              "Adam: a method for stochastic optimization",
              "International Conference on Learning Representations", "arXiv:1412.6980"),
    Reference("rdl", "article", ("McClure, Patrick", "Kriegeskorte, Nikolaus"), 2016,
              "Representational distance learning for deep neural networks",
              "Frontiers in Computational Neuroscience", "10, 131", "10.3389/fncom.2016.00131"),
    Reference("distillation", "misc", ("Hinton, Geoffrey", "Vinyals, Oriol", "Dean, Jeff"), 2015,
              "Distilling the knowledge in a neural network", "arXiv", "1503.02531"),
)  # fmt: skip
