"""Models fitted at the group: to participants' averaged responses, to all their voxels, or to the others of each.

The one idea: participants are joined by the stimuli that all of them saw, and then either stand for one brain, which
the analyses of a participant take as it is, or are predicted one by one from the others.
"""

from __future__ import annotations

from bidsdnn.groupmodels.run import group_models

__all__ = ["group_models"]
