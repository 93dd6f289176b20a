"""The works that a methods section has to name, and how to cite them.

Analyses store the keys of this table in their sidecars, so that a report cites what was used and only that.
"""

from __future__ import annotations

import re

from bidsdnn.report.atlas_works import ATLASES
from bidsdnn.report.network_works import NETWORKS
from bidsdnn.report.optimal_works import OPTIMAL
from bidsdnn.report.population import POPULATION
from bidsdnn.report.probe_works import PROBES
from bidsdnn.report.reference import Reference
from bidsdnn.report.training_works import TRAINING


def find(key: str) -> Reference | None:
    """Look a key up, whatever its case; None if the table lacks it.

    Parameters
    ----------
    key : str

    Returns
    -------
    Reference or None
    """
    return REFERENCES.get(key.strip().lower())


def citation(keys: list[str]) -> tuple[str, str]:
    """Cite works as a list in Markdown and as BibTeX entries.

    Parameters
    ----------
    keys : list of str
        Keys of `REFERENCES`, or references in full, which have no BibTeX entry. Repetitions are dropped.

    Returns
    -------
    markdown : str
        One item per work, sorted as in a paper.
    bibtex : str
        One entry per work.

    Raises
    ------
    ValueError
        If something that looks like a key is not in the table.
    """
    works: dict[str, Reference] = {}
    texts: list[str] = []
    for key in dict.fromkeys(keys):
        reference = find(key)
        if reference is not None:
            works[reference.key] = reference
        elif re.search(r"\s", key.strip()):
            texts.append(key.strip())
        else:
            raise ValueError(f"keys: expected keys of REFERENCES or references in full, got {key!r}")
    lines = sorted([work.text for work in works.values()] + texts, key=str.casefold)
    entries = [works[key].bibtex for key in sorted(works)]
    return "".join(f"- {line}\n" for line in lines), "".join(f"{entry}\n\n" for entry in entries).rstrip("\n") + "\n"


_TABLE = (
    Reference("bidsdnn", "misc", ("The bidsdnn contributors",), None,
              "bidsdnn: how well do deep networks explain brains?", "Software"),
    Reference("dnnbrain", "article",
              ("Chen, Xiayu", "Zhou, Ming", "Gong, Zhengxin", "Xu, Wei", "Liu, Xingyu", "Huang, Taicheng",
               "Zhen, Zonglei", "Liu, Jia"), 2020,
              "DNNBrain: a unifying toolbox for mapping deep neural networks and brains",
              "Frontiers in Computational Neuroscience", "14, 580632", "10.3389/fncom.2020.580632"),
    Reference("fmriprep", "article",
              ("Esteban, Oscar", "Markiewicz, Christopher J.", "Blair, Ross W.", "Moodie, Craig A.",
               "Isik, A. Ilkay", "Erramuzpe, Asier", "Kent, James D.", "Goncalves, Mathias", "DuPre, Elizabeth",
               "Snyder, Madeleine", "Oya, Hiroyuki", "Ghosh, Satrajit S.", "Wright, Jessey", "Durnez, Joke",
               "Poldrack, Russell A.", "Gorgolewski, Krzysztof J."), 2019,
              "fMRIPrep: a robust preprocessing pipeline for functional MRI", "Nature Methods", "16, 111-116",
              "10.1038/s41592-018-0235-4"),
    Reference("bids", "article",
              ("Gorgolewski, Krzysztof J.", "Auer, Tibor", "Calhoun, Vince D.", "Craddock, R. Cameron",
               "Das, Samir", "others"), 2016,
              "The brain imaging data structure, a format for organizing and describing outputs of "
              "neuroimaging experiments", "Scientific Data", "3, 160044", "10.1038/sdata.2016.44"),
    Reference("bids-apps", "article",
              ("Gorgolewski, Krzysztof J.", "Alfaro-Almagro, Fidel", "Auer, Tibor", "Bellec, Pierre", "others"), 2017,
              "BIDS Apps: improving ease of use, accessibility, and reproducibility of neuroimaging data "
              "analysis methods", "PLOS Computational Biology", "13(3), e1005209", "10.1371/journal.pcbi.1005209"),
    Reference("pybids", "article",
              ("Yarkoni, Tal", "Markiewicz, Christopher J.", "de la Vega, Alejandro",
               "Gorgolewski, Krzysztof J.", "Salo, Taylor", "others"), 2019,
              "PyBIDS: Python tools for BIDS datasets", "Journal of Open Source Software", "4(40), 1294",
              "10.21105/joss.01294"),
    Reference("nilearn", "article",
              ("Abraham, Alexandre", "Pedregosa, Fabian", "Eickenberg, Michael", "Gervais, Philippe",
               "Mueller, Andreas", "Kossaifi, Jean", "Gramfort, Alexandre", "Thirion, Bertrand",
               "Varoquaux, Gaël"), 2014,
              "Machine learning for neuroimaging with scikit-learn", "Frontiers in Neuroinformatics", "8, 14",
              "10.3389/fninf.2014.00014"),
    Reference("nibabel", "misc",
              ("Brett, Matthew", "Markiewicz, Christopher J.", "Hanke, Michael", "Côté, Marc-Alexandre", "others"),
              None,
              "nibabel: access a cacophony of neuro-imaging file formats", "Zenodo", "", "10.5281/zenodo.591597"),
    Reference("numpy", "article",
              ("Harris, Charles R.", "Millman, K. Jarrod", "van der Walt, Stéfan J.", "others"), 2020,
              "Array programming with NumPy", "Nature", "585, 357-362", "10.1038/s41586-020-2649-2"),
    Reference("scipy", "article",
              ("Virtanen, Pauli", "Gommers, Ralf", "Oliphant, Travis E.", "others"), 2020,
              "SciPy 1.0: fundamental algorithms for scientific computing in Python", "Nature Methods",
              "17, 261-272", "10.1038/s41592-019-0686-2"),
    Reference("pandas", "inproceedings", ("McKinney, Wes",), 2010,
              "Data structures for statistical computing in Python",
              "Proceedings of the 9th Python in Science Conference", "56-61", "10.25080/Majora-92bf1922-00a"),
    Reference("matplotlib", "article", ("Hunter, John D.",), 2007,
              "Matplotlib: a 2D graphics environment", "Computing in Science & Engineering", "9(3), 90-95",
              "10.1109/MCSE.2007.55"),
    Reference("scikit-learn", "article",
              ("Pedregosa, Fabian", "Varoquaux, Gaël", "Gramfort, Alexandre", "Michel, Vincent",
               "Thirion, Bertrand", "others"), 2011,
              "Scikit-learn: machine learning in Python", "Journal of Machine Learning Research", "12, 2825-2830"),
    Reference("pytorch", "inproceedings",
              ("Paszke, Adam", "Gross, Sam", "Massa, Francisco", "Lerer, Adam", "Bradbury, James", "Chanan, Gregory",
               "others"), 2019,
              "PyTorch: an imperative style, high-performance deep learning library",
              "Advances in Neural Information Processing Systems", "32, 8024-8035"),
    Reference("torchvision", "misc", ("TorchVision maintainers and contributors",), 2016,
              "TorchVision: PyTorch's computer vision library", "Software"),
    Reference("lss", "article",
              ("Mumford, Jeanette A.", "Turner, Benjamin O.", "Ashby, F. Gregory", "Poldrack, Russell A."), 2012,
              "Deconvolving BOLD activation in event-related designs for multivoxel pattern classification analyses",
              "NeuroImage", "59(3), 2636-2643", "10.1016/j.neuroimage.2011.08.076"),
    Reference("lss-turner", "article",
              ("Turner, Benjamin O.", "Mumford, Jeanette A.", "Poldrack, Russell A.", "Ashby, F. Gregory"), 2012,
              "Spatiotemporal activity estimation for multivoxel pattern analysis with rapid event-related designs",
              "NeuroImage", "62(3), 1429-1438", "10.1016/j.neuroimage.2012.05.057"),
    Reference("lsa", "article", ("Rissman, Jesse", "Gazzaley, Adam", "D'Esposito, Mark"), 2004,
              "Measuring functional connectivity during distinct stages of a cognitive task", "NeuroImage",
              "23(2), 752-763", "10.1016/j.neuroimage.2004.06.035"),
    Reference("glmsingle", "article",
              ("Prince, Jacob S.", "Charest, Ian", "Kurzawski, Jan W.", "Pyles, John A.", "Tarr, Michael J.",
               "Kay, Kendrick N."), 2022,
              "Improving the accuracy of single-trial fMRI response estimates using GLMsingle", "eLife", "11, e77599",
              "10.7554/eLife.77599"),
    Reference("glmdenoise", "article",
              ("Kay, Kendrick N.", "Rokem, Ariel", "Winawer, Jonathan", "Dougherty, Robert F.", "Wandell, Brian A."),
              2013, "GLMdenoise: a fast, automated technique for denoising task-based fMRI data",
              "Frontiers in Neuroscience", "7, 247", "10.3389/fnins.2013.00247"),
    Reference("fracridge", "article", ("Rokem, Ariel", "Kay, Kendrick"), 2020,
              "Fractional ridge regression: a fast, interpretable reparameterization of ridge regression",
              "GigaScience", "9(12), giaa133", "10.1093/gigascience/giaa133"),
    Reference("fir", "article", ("Glover, Gary H.",), 1999,
              "Deconvolution of impulse response in event-related BOLD fMRI", "NeuroImage", "9(4), 416-429",
              "10.1006/nimg.1998.0419"),
    Reference("window", "article",
              ("Chang, Nadine", "Pyles, John A.", "Marcus, Austin", "Gupta, Abhinav", "Tarr, Michael J.",
               "Aminoff, Elissa M."), 2019,
              "BOLD5000, a public fMRI dataset while viewing 5000 visual images", "Scientific Data", "6, 49",
              "10.1038/s41597-019-0052-3"),
    Reference("condition", "article",
              ("Friston, Karl J.", "Holmes, Andrew P.", "Worsley, Keith J.", "Poline, Jean-Pierre",
               "Frith, Chris D.", "Frackowiak, Richard S. J."), 1994,
              "Statistical parametric maps in functional imaging: a general linear approach", "Human Brain Mapping",
              "2(4), 189-210", "10.1002/hbm.460020402"),
    Reference("timeseries", "article",
              ("Nishimoto, Shinji", "Vu, An T.", "Naselaris, Thomas", "Benjamini, Yuval", "Yu, Bin",
               "Gallant, Jack L."), 2011,
              "Reconstructing visual experiences from brain activity evoked by natural movies",
              "Current Biology", "21(19), 1641-1646", "10.1016/j.cub.2011.08.031"),
    Reference("ar1", "article",
              ("Worsley, Keith J.", "Liao, Chuan Hong", "Aston, John", "Petre, Valentina", "Duncan, Gary H.",
               "Morales, Filomeno", "Evans, Alan C."), 2002,
              "A general statistical analysis for fMRI data", "NeuroImage", "15(1), 1-15", "10.1006/nimg.2001.0933"),
    Reference("motion", "article",
              ("Power, Jonathan D.", "Barnes, Kelly A.", "Snyder, Abraham Z.", "Schlaggar, Bradley L.",
               "Petersen, Steven E."), 2012,
              "Spurious but systematic correlations in functional connectivity MRI networks arise from subject motion",
              "NeuroImage", "59(3), 2142-2154", "10.1016/j.neuroimage.2011.10.018"),
    Reference("motion-24", "article",
              ("Friston, Karl J.", "Williams, Steven", "Howard, Robert", "Frackowiak, Richard S. J.", "Turner, Robert"),
              1996, "Movement-related effects in fMRI time-series", "Magnetic Resonance in Medicine", "35(3), 346-355",
              "10.1002/mrm.1910350312"),
    Reference("compcor", "article", ("Behzadi, Yashar", "Restom, Khaled", "Liau, Joy", "Liu, Thomas T."), 2007,
              "A component based noise correction method (CompCor) for BOLD and perfusion based fMRI", "NeuroImage",
              "37(1), 90-101", "10.1016/j.neuroimage.2007.04.042"),
    Reference("ica-aroma", "article",
              ("Pruim, Raimon H. R.", "Mennes, Maarten", "van Rooij, Daan", "Llera, Alberto", "Buitelaar, Jan K.",
               "Beckmann, Christian F."), 2015,
              "ICA-AROMA: a robust ICA-based strategy for removing motion artifacts from fMRI data", "NeuroImage",
              "112, 267-277", "10.1016/j.neuroimage.2015.02.064"),
    Reference("ncsnr", "article",
              ("Allen, Emily J.", "St-Yves, Ghislain", "Wu, Yihan", "Breedlove, Jesse L.", "Prince, Jacob S.",
               "Dowdle, Logan T.", "Nau, Matthias", "Caron, Brad", "Pestilli, Franco", "Charest, Ian",
               "Hutchinson, J. Benjamin", "Naselaris, Thomas", "Kay, Kendrick"), 2022,
              "A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence",
              "Nature Neuroscience", "25, 116-126", "10.1038/s41593-021-00962-x"),
    Reference("rsa", "article", ("Kriegeskorte, Nikolaus", "Mur, Marieke", "Bandettini, Peter"), 2008,
              "Representational similarity analysis - connecting the branches of systems neuroscience",
              "Frontiers in Systems Neuroscience", "2, 4", "10.3389/neuro.06.004.2008"),
    Reference("rsa-toolbox", "article",
              ("Nili, Hamed", "Wingfield, Cai", "Walther, Alexander", "Su, Li", "Marslen-Wilson, William",
               "Kriegeskorte, Nikolaus"), 2014,
              "A toolbox for representational similarity analysis", "PLOS Computational Biology",
              "10(4), e1003553", "10.1371/journal.pcbi.1003553"),
    Reference("searchlight", "article", ("Kriegeskorte, Nikolaus", "Goebel, Rainer", "Bandettini, Peter"), 2006,
              "Information-based functional brain mapping",
              "Proceedings of the National Academy of Sciences", "103(10), 3863-3868", "10.1073/pnas.0600244103"),
    Reference("rsa-inference", "article",
              ("Schütt, Heiko H.", "Kipnis, Alexander D.", "Diedrichsen, Jörn", "Kriegeskorte, Nikolaus"), 2023,
              "Statistical inference on representational geometries", "eLife", "12, e82566", "10.7554/eLife.82566"),
    Reference("crossnobis", "article",
              ("Walther, Alexander", "Nili, Hamed", "Ejaz, Naveed", "Alink, Arjen", "Kriegeskorte, Nikolaus",
               "Diedrichsen, Jörn"), 2016,
              "Reliability of dissimilarity measures for multi-voxel pattern analysis", "NeuroImage", "137, 188-200",
              "10.1016/j.neuroimage.2015.12.012"),
    Reference("weighted-rsa", "article", ("Khaligh-Razavi, Seyed-Mahdi", "Kriegeskorte, Nikolaus"), 2014,
              "Deep supervised, but not unsupervised, models may explain IT cortical representation",
              "PLOS Computational Biology", "10(11), e1003915", "10.1371/journal.pcbi.1003915"),
    Reference("partial-permutation", "article", ("Legendre, Pierre",), 2000,
              "Comparison of permutation methods for the partial correlation and partial Mantel tests",
              "Journal of Statistical Computation and Simulation", "67(1), 37-73", "10.1080/00949650008812035"),
    Reference("mds", "article", ("Torgerson, Warren S.",), 1952,
              "Multidimensional scaling: I. Theory and method", "Psychometrika", "17(4), 401-419",
              "10.1007/BF02288916"),
    Reference("encoding", "article",
              ("Naselaris, Thomas", "Kay, Kendrick N.", "Nishimoto, Shinji", "Gallant, Jack L."), 2011,
              "Encoding and decoding in fMRI", "NeuroImage", "56(2), 400-410", "10.1016/j.neuroimage.2010.07.073"),
    Reference("ridge", "article", ("Hoerl, Arthur E.", "Kennard, Robert W."), 1970,
              "Ridge regression: biased estimation for nonorthogonal problems", "Technometrics", "12(1), 55-67",
              "10.1080/00401706.1970.10488634"),
    Reference("banded-ridge", "article", ("Nunez-Elizalde, Anwar O.", "Huth, Alexander G.", "Gallant, Jack L."), 2019,
              "Voxelwise encoding models with non-spherical multivariate normal priors", "NeuroImage", "197, 482-492",
              "10.1016/j.neuroimage.2019.04.012"),
    Reference("banded-ridge-search", "article",
              ("Dupré la Tour, Tom", "Eickenberg, Michael", "Nunez-Elizalde, Anwar O.", "Gallant, Jack L."), 2022,
              "Feature-space selection with banded ridge regression", "NeuroImage", "264, 119728",
              "10.1016/j.neuroimage.2022.119728"),
    Reference("variance-partition", "article", ("Lescroart, Mark D.", "Stansbury, Dustin E.", "Gallant, Jack L."), 2015,
              "Fourier power, subjective distance, and object categories all provide plausible models of BOLD "
              "responses in scene-selective visual areas", "Frontiers in Computational Neuroscience", "9, 135",
              "10.3389/fncom.2015.00135"),
    Reference("commonality", "article", ("Mood, Alexander M.",), 1971,
              "Partitioning variance in multiple regression analyses as a tool for developing learning models",
              "American Educational Research Journal", "8(2), 191-202", "10.3102/00028312008002191"),
    Reference("ols", "article", ("Penrose, Roger",), 1956,
              "On best approximate solutions of linear matrix equations",
              "Mathematical Proceedings of the Cambridge Philosophical Society", "52(1), 17-19",
              "10.1017/S0305004100030929"),
    Reference("pls", "article", ("Wold, Svante", "Sjöström, Michael", "Eriksson, Lennart"), 2001,
              "PLS-regression: a basic tool of chemometrics", "Chemometrics and Intelligent Laboratory Systems",
              "58(2), 109-130", "10.1016/S0169-7439(01)00155-1"),
    Reference("lasso", "article", ("Tibshirani, Robert",), 1996,
              "Regression shrinkage and selection via the lasso",
              "Journal of the Royal Statistical Society: Series B", "58(1), 267-288",
              "10.1111/j.2517-6161.1996.tb02080.x"),
    Reference("elastic-net", "article", ("Zou, Hui", "Hastie, Trevor"), 2005,
              "Regularization and variable selection via the elastic net",
              "Journal of the Royal Statistical Society: Series B", "67(2), 301-320",
              "10.1111/j.1467-9868.2005.00503.x"),
    Reference("kernel-ridge", "inproceedings", ("Saunders, Craig", "Gammerman, Alexander", "Vovk, Volodya"), 1998,
              "Ridge regression learning algorithm in dual variables",
              "Proceedings of the 15th International Conference on Machine Learning", "515-521"),
    Reference("permutation", "article", ("Phipson, Belinda", "Smyth, Gordon K."), 2010,
              "Permutation p-values should never be zero: calculating exact p-values when permutations are "
              "randomly drawn", "Statistical Applications in Genetics and Molecular Biology", "9(1), 39",
              "10.2202/1544-6115.1585"),
    Reference("circular-shift", "article",
              ("Nastase, Samuel A.", "Gazzola, Valeria", "Hasson, Uri", "Keysers, Christian"), 2019,
              "Measuring shared responses across subjects using intersubject correlation",
              "Social Cognitive and Affective Neuroscience", "14(6), 667-685", "10.1093/scan/nsz037"),
    Reference("layer-assignment", "article", ("Güçlü, Umut", "van Gerven, Marcel A. J."), 2015,
              "Deep neural networks reveal a gradient in the complexity of neural representations across the ventral "
              "stream", "Journal of Neuroscience", "35(27), 10005-10014", "10.1523/JNEUROSCI.5023-14.2015"),
    Reference("brain-hierarchy", "article", ("Nonaka, Soma", "Majima, Kei", "Aoki, Shuntaro C.", "Kamitani, Yukiyasu"),
              2021, "Brain hierarchy score: which deep neural networks are hierarchically brain-like?", "iScience",
              "24(9), 103013", "10.1016/j.isci.2021.103013"),
    Reference("corrected-resampling", "article", ("Nadeau, Claude", "Bengio, Yoshua"), 2003,
              "Inference for the generalization error", "Machine Learning", "52(3), 239-281",
              "10.1023/A:1024068626366"),
    Reference("lda-ridge", "article", ("Hastie, Trevor", "Buja, Andreas", "Tibshirani, Robert"), 1995,
              "Penalized discriminant analysis", "The Annals of Statistics", "23(1), 73-102",
              "10.1214/aos/1176324456"),
    Reference("haufe", "article",
              ("Haufe, Stefan", "Meinecke, Frank", "Görgen, Kai", "Dähne, Sven", "Haynes, John-Dylan",
               "Blankertz, Benjamin", "Bießmann, Felix"), 2014,
              "On the interpretation of weight vectors of linear models in multivariate neuroimaging", "NeuroImage",
              "87, 96-110", "10.1016/j.neuroimage.2013.10.067"),
    Reference("identification", "article",
              ("Kay, Kendrick N.", "Naselaris, Thomas", "Prenger, Ryan J.", "Gallant, Jack L."), 2008,
              "Identifying natural images from human brain activity", "Nature", "452(7185), 352-355",
              "10.1038/nature06713"),
    Reference("holm", "article", ("Holm, Sture",), 1979,
              "A simple sequentially rejective multiple test procedure", "Scandinavian Journal of Statistics",
              "6(2), 65-70"),
    Reference("contrast", "article", ("Peli, Eli",), 1990, "Contrast in complex images",
              "Journal of the Optical Society of America A", "7(10), 2032-2040", "10.1364/JOSAA.7.002032"),
    Reference("gabor", "article", ("Daugman, John G.",), 1985,
              "Uncertainty relation for resolution in space, spatial frequency, and orientation optimized by "
              "two-dimensional visual cortical filters", "Journal of the Optical Society of America A",
              "2(7), 1160-1169", "10.1364/JOSAA.2.001160"),
    Reference("hog", "inproceedings", ("Dalal, Navneet", "Triggs, Bill"), 2005,
              "Histograms of oriented gradients for human detection",
              "IEEE Conference on Computer Vision and Pattern Recognition", "886-893", "10.1109/CVPR.2005.177"),
    Reference("flow", "article", ("Horn, Berthold K. P.", "Schunck, Brian G."), 1981, "Determining optical flow",
              "Artificial Intelligence", "17(1-3), 185-203", "10.1016/0004-3702(81)90024-2"),
    Reference("mel", "misc", ("O'Shaughnessy, Douglas",), 1987, "Speech communication: human and machine",
              "Addison-Wesley"),
    Reference("random-projection", "inproceedings", ("Li, Ping", "Hastie, Trevor J.", "Church, Kenneth W."), 2006,
              "Very sparse random projections",
              "ACM SIGKDD International Conference on Knowledge Discovery and Data Mining", "287-296",
              "10.1145/1150402.1150436"),
)  # fmt: skip

REFERENCES: dict[str, Reference] = {
    reference.key: reference for reference in (*_TABLE, *POPULATION, *TRAINING, *PROBES, *OPTIMAL, *NETWORKS, *ATLASES)
}
