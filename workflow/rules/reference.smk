rule reference:
    input:
        inputs_of("reference"),
    output:
        products=REFERENCE,
        sidecars=[paths.sidecar(path) for path in REFERENCE],
        record=paths.run_record(REFERENCE[0]),
    log:
        LOGS / "reference.log",
    benchmark:
        BENCHMARKS / "reference.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=SCORING_GPUS,
    params:
        root=root_of,
        spec=spec_of("reference"),
    shell:
        "diffbench reference --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
