# A rule for each stage, named as it is, and for trainings that keep snapshots `train_along`, `train_along_2`, ..: what a
# stage makes and needs is said by its spec in diffbench/specs/jobs. The shell command is looked up again when a job runs:
# Snakemake then calls the running job's rule `rule`, as the loop does here.
for rule in RULES:

    rule:
        name:
            rule
        input:
            inputs_of(rule),
        output:
            outputs_of(rule),
        log:
            LOGS / f"{RULES[rule].job}.log",
        wildcard_constraints:
            **RULES[rule].constraints,
        priority: RULES[rule].stage.priority
        conda:
            "../../environment.yml"
        threads: threads_of(rule)
        resources:
            **nodes_of(rule),
            **sizes_of(rule),
            gpu=gpus_of(rule),
        params:
            root=root_of,
            spec=spec_of(rule),
        shell:
            RULES[rule].command
