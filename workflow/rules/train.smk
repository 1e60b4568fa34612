# A rule for each list of weights that runs of the plan keep: outputs cannot depend on the variant otherwise. Most plans
# have one, or two: `train`, of models alone, and `train_along`, with snapshots.
for NAME, KEPT in training_rules(PLAN).items():

    rule:
        name:
            NAME
        input:
            inputs_of("train"),
        output:
            product=MODEL,
            sidecar=paths.sidecar(MODEL),
            record=paths.run_record(MODEL),
            others=[RUN_FOLDER / each for each in KEPT.others],
            others_sidecars=[paths.sidecar(RUN_FOLDER / each) for each in KEPT.others],
        log:
            LOGS / f"train/{RUN_NAME}.log",
        benchmark:
            BENCHMARKS / f"train/{RUN_NAME}.tsv"
        wildcard_constraints:
            variant=KEPT.variants,
        conda:
            "../../environment.yml"
        threads: threads_of("train")
        resources:
            gpu=TRAINING_GPUS,
        params:
            root=root_of,
            spec=spec_of("train"),
        shell:
            "diffbench train --root {params.root:q} --spec {params.spec:q}"
            " --processes {resources.gpu} > {log:q} 2>&1"
