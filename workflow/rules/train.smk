rule train:
    input:
        inputs_of("train"),
    output:
        product=MODEL,
        sidecar=paths.sidecar(MODEL),
        record=paths.run_record(MODEL),
    log:
        LOGS / f"train/{RUN_NAME}.log",
    benchmark:
        BENCHMARKS / f"train/{RUN_NAME}.tsv"
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
