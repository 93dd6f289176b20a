"""What stimuli hold without any network: light, edges, motion, sound, words and time."""

from bidsdnn.methods.lowlevel.motion import flow
from bidsdnn.methods.lowlevel.pictures import colour, contrast, gabor, hog, luminance, relative_luminance
from bidsdnn.methods.lowlevel.sounds import envelope, mel, mel_filters
from bidsdnn.methods.lowlevel.times import position, wordrate

__all__ = [
    "colour",
    "contrast",
    "envelope",
    "flow",
    "gabor",
    "hog",
    "luminance",
    "mel",
    "mel_filters",
    "position",
    "relative_luminance",
    "wordrate",
]
