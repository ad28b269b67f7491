"""Tell the pip of an old Python which one is needed; for every other, see pyproject.toml."""

import sys

from setuptools import Distribution, setup

WANT = (3, 11)


class Bare(Distribution):
    "Nothing of pyproject.toml: some pips look for all dependencies before they compare Pythons."

    def parse_config_files(self, *args, **kwargs):
        pass


if sys.version_info >= WANT:
    setup()
elif {"install", "develop", "bdist_wheel"} & set(
    sys.argv
):  # a pip before 9 does not compare by itself
    sys.exit(
        "gpt2edu needs Python %d.%d or newer, this is %d.%d" % (WANT + tuple(sys.version_info[:2]))
    )
else:
    wanted = ">=%d.%d" % WANT
    setup(distclass=Bare, name="gpt2edu", version="0", packages=[], python_requires=wanted)
