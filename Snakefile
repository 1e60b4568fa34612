# Wiring only: what runs is decided by diffbench/plan from config/, what a job does by `diffbench STAGE`.
#
#   snakemake --cores all                                         the embedded benchmark, config/digits.yaml
#   snakemake --cores all --configfile FILE [--config only=vp]    another, or a part of it
from snakemake.utils import min_version

min_version("9.8")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/reference.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/classifier.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/likelihood.smk"
include: "workflow/rules/restore.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/tables.smk"


localrules:
    all,
    tables,


rule all:
    default_target: True
    input:
        TABLES,
        paths.tables_complete(PLAN.root),
        [product for run in PLAN.runs for product in run.products],
        [paths.grid(PLAN.root, run.variant, run.seed, run.item) for run in PLAN.of("sample")],
        [
            paths.restored_picture(PLAN.root, run.variant, run.seed, *run.item.split("/"))
            for run in PLAN.of("restore")
        ],


# What a failed run still has goes into the tables; the exit status stays 1.
onerror:
    shell(RESCUE)
