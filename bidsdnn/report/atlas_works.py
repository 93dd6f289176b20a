"""The works that atlases come from, for atlases that go by their usual names."""

from __future__ import annotations

import re

from bidsdnn.report.reference import Reference

ATLASES = (
    Reference("schaefer", "article",
              ("Schaefer, Alexander", "Kong, Ru", "Gordon, Evan M.", "Laumann, Timothy O.", "Zuo, Xi-Nian",
               "Holmes, Avram J.", "Eickhoff, Simon B.", "Yeo, B. T. Thomas"), 2018,
              "Local-global parcellation of the human cerebral cortex from intrinsic functional connectivity MRI",
              "Cerebral Cortex", "28(9), 3095-3114", "10.1093/cercor/bhx179"),
    Reference("glasser", "article",
              ("Glasser, Matthew F.", "Coalson, Timothy S.", "Robinson, Emma C.", "Hacker, Carl D.",
               "Harwell, John", "Yacoub, Essa", "Ugurbil, Kamil", "Andersson, Jesper", "Beckmann, Christian F.",
               "Jenkinson, Mark", "Smith, Stephen M.", "Van Essen, David C."), 2016,
              "A multi-modal parcellation of human cerebral cortex", "Nature", "536, 171-178", "10.1038/nature18933"),
    Reference("desikan", "article",
              ("Desikan, Rahul S.", "Ségonne, Florent", "Fischl, Bruce", "Quinn, Brian T.", "Dickerson, Bradford C.",
               "Blacker, Deborah", "Buckner, Randy L.", "Dale, Anders M.", "Maguire, R. Paul", "Hyman, Bradley T.",
               "Albert, Marilyn S.", "Killiany, Ronald J."), 2006,
              "An automated labeling system for subdividing the human cerebral cortex on MRI scans into gyral based "
              "regions of interest", "NeuroImage", "31(3), 968-980", "10.1016/j.neuroimage.2006.01.021"),
    Reference("destrieux", "article",
              ("Destrieux, Christophe", "Fischl, Bruce", "Dale, Anders", "Halgren, Eric"), 2010,
              "Automatic parcellation of human cortical gyri and sulci using standard anatomical nomenclature",
              "NeuroImage", "53(1), 1-15", "10.1016/j.neuroimage.2010.06.010"),
    Reference("wang-topography", "article",
              ("Wang, Liang", "Mruczek, Ryan E. B.", "Arcaro, Michael J.", "Kastner, Sabine"), 2015,
              "Probabilistic maps of visual topography in human cortex", "Cerebral Cortex", "25(10), 3911-3931",
              "10.1093/cercor/bhu277"),
)  # fmt: skip

# Names as they stand in files' entities and in those of nilearn, TemplateFlow and FreeSurfer.
_NAMES = {
    r"schaefer(2018)?": "schaefer", r"(glasser(2016)?|hcpmmp1?|mmp1?)": "glasser",
    r"(desikan(killiany)?(2006)?|aparc)": "desikan", r"(destrieux(2009|2010)?|aparca2009s|a2009s)": "destrieux",
    r"wang(2015|15)(mpm)?": "wang-topography",
}  # fmt: skip


def atlas_reference(label: str) -> str | None:
    """Key of the work that an atlas comes from, by its usual name.

    Parameters
    ----------
    label : str
        As in a file's name, ``Schaefer2018``.

    Returns
    -------
    str or None
        None for atlases of which the table knows nothing.
    """
    plain = re.sub(r"[^a-z0-9]", "", label.lower())
    return next((key for name, key in _NAMES.items() if re.fullmatch(name, plain)), None)
