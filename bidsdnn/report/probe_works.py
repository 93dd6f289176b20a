"""Works that analyses of networks by themselves rest on."""

from __future__ import annotations

from bidsdnn.report.reference import Reference

PROBES = (
    Reference("treves", "article", ("Treves, Alessandro", "Rolls, Edmund T."), 1991,
              "What determines the capacity of autoassociative memories in the brain?",
              "Network: Computation in Neural Systems", "2(4), 371-397", "10.1088/0954-898X_2_4_004"),
    Reference("vinje", "article", ("Vinje, William E.", "Gallant, Jack L."), 2000,
              "Sparse coding and decorrelation in primary visual cortex during natural vision", "Science",
              "287(5456), 1273-1276", "10.1126/science.287.5456.1273"),
    Reference("morcos", "inproceedings",
              ("Morcos, Ari S.", "Barrett, David G. T.", "Rabinowitz, Neil C.", "Botvinick, Matthew"), 2018,
              "On the importance of single directions for generalization",
              "International Conference on Learning Representations", "arXiv:1803.06959"),
    Reference("gao", "misc",
              ("Gao, Peiran", "Trautmann, Eric", "Yu, Byron", "Santhanam, Gopal", "Ryu, Stephen",
               "Shenoy, Krishna", "Ganguli, Surya"), 2017,
              "A theory of multineuronal dimensionality, dynamics and measurement", "bioRxiv", "214262",
              "10.1101/214262"),
)  # fmt: skip
