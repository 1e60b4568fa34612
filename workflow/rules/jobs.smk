# A rule for each stage, named as it is, and for trainings that keep snapshots `train_along`, `train_along_2`, ..: what a
# stage makes and needs is said by its spec in diffbench/specs/jobs.
for RULE in rules(PLAN):

    rule:
        name:
            RULE.name
        input:
            inputs_of(RULE),
        output:
            outputs_of(RULE),
        log:
            LOGS / f"{RULE.job}.log",
        benchmark:
            BENCHMARKS / f"{RULE.job}.tsv"
        wildcard_constraints:
            **RULE.constraints,
        conda:
            "../../environment.yml"
        threads: threads_of(RULE)
        resources:
            gpu=gpus_of(RULE),
        params:
            root=root_of,
            spec=spec_of(RULE),
        shell:
            RULE.command
