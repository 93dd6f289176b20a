"""Works on statistics over participants."""

from __future__ import annotations

from bidsdnn.report.reference import Reference

POPULATION = (
    Reference("sign-flip", "article", ("Nichols, Thomas E.", "Holmes, Andrew P."), 2002,
              "Nonparametric permutation tests for functional neuroimaging: a primer with examples",
              "Human Brain Mapping", "15(1), 1-25", "10.1002/hbm.1058"),
    Reference("fdr", "article", ("Benjamini, Yoav", "Hochberg, Yosef"), 1995,
              "Controlling the false discovery rate: a practical and powerful approach to multiple testing",
              "Journal of the Royal Statistical Society: Series B", "57(1), 289-300",
              "10.1111/j.2517-6161.1995.tb02031.x"),
    Reference("tfce", "article", ("Smith, Stephen M.", "Nichols, Thomas E."), 2009,
              "Threshold-free cluster enhancement: addressing problems of smoothing, threshold dependence and "
              "localisation in cluster inference", "NeuroImage", "44(1), 83-98", "10.1016/j.neuroimage.2008.03.061"),
    Reference("freedman-lane", "article", ("Freedman, David", "Lane, David"), 1983,
              "A nonstochastic interpretation of reported significance levels",
              "Journal of Business & Economic Statistics", "1(4), 292-298", "10.1080/07350015.1983.10509354"),
    Reference("permutation-glm", "article",
              ("Winkler, Anderson M.", "Ridgway, Gerard R.", "Webster, Matthew A.", "Smith, Stephen M.",
               "Nichols, Thomas E."), 2014,
              "Permutation inference for the general linear model", "NeuroImage", "92, 381-397",
              "10.1016/j.neuroimage.2014.01.060"),
    Reference("prevalence", "article",
              ("Ince, Robin A. A.", "Paton, Angus T.", "Kay, Jim W.", "Schyns, Philippe G."), 2021,
              "Bayesian inference of population prevalence", "eLife", "10, e62461", "10.7554/eLife.62461"),
)  # fmt: skip
