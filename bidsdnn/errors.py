"""What can go wrong that a user can mend.

Every error below is shown as one line that names the file, the value and the fix; only `bidsdnn.cli` catches them.
Anything else is a bug and shows its traceback.

* BidsdnnError
    x ConfigError             2: what was asked makes no sense
      + UnknownLevelError    17: the analysis level does not exist
    x DatasetError
      + InvalidDatasetError  16: the input is not BIDS
      + SelectionError       18: the filters select no files
      + DataError            65: a file's content cannot be used
      + MissingInputError    66: a file that is needed is not there
    x OutputError            73: the output cannot be written
"""

from __future__ import annotations


class BidsdnnError(Exception):
    """Base of the errors that a user can mend; `exit_code` is the process's exit status."""

    exit_code = 1


class ConfigError(BidsdnnError):
    """What was asked, on the command line or in the TOML file, makes no sense."""

    exit_code = 2


class UnknownLevelError(ConfigError):
    """The analysis level is none of dnn, participant, group."""

    exit_code = 17


class DatasetError(BidsdnnError):
    """The dataset cannot be used as asked."""

    exit_code = 65


class InvalidDatasetError(DatasetError):
    """The input folder is not a BIDS dataset."""

    exit_code = 16


class SelectionError(DatasetError):
    """The filters select no files."""

    exit_code = 18


class DataError(DatasetError):
    """The content of a file cannot be used."""

    exit_code = 65


class MissingInputError(DatasetError):
    """A file that is needed is not there."""

    exit_code = 66


class OutputError(BidsdnnError):
    """The output cannot be written."""

    exit_code = 73
