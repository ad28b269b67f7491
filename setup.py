"""Tell the pip of an old Python which one is needed; for every other, see pyproject.toml."""

import sys

from setuptools import setup

WANT = (3, 11)
if sys.version_info >= WANT:
    setup()
elif {"install", "develop", "bdist_wheel"} & set(
    sys.argv
):  # a pip before 9 does not compare by itself
    sys.exit(
        "gpt2edu needs Python %d.%d or newer, this is %d.%d" % (WANT + tuple(sys.version_info[:2]))
    )
else:  # no dependencies here: pip compares the Pythons before it looks for any
    setup(name="gpt2edu", version="0", python_requires=">=%d.%d" % WANT)
