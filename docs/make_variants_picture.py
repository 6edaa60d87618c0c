"""Draws what a run's I-Agent did: source, edges, variants, verdicts. This is how docs/variants.png was made.

maskwright run quickstart --set agents.text_agent=null --out RUN
python docs/make_variants_picture.py RUN docs/variants.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from maskwright.configs.conditioning import EdgesSettings
from maskwright.evaluation.variants_sheet import run_to_sheet
from maskwright.tools.painting.edges import EdgeDetector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("out", type=Path, help="PNG or JPEG to write")
    parser.add_argument("--rows", type=int, default=5)
    arguments = parser.parse_args()
    sheet = run_to_sheet(arguments.run, arguments.rows, EdgeDetector(EdgesSettings()).detect)
    Image.fromarray(sheet).save(arguments.out)


if __name__ == "__main__":
    main()
