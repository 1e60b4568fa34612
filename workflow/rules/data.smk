rule data:
    input:
        inputs_of("data"),
    output:
        product=LEVELS,
        sidecar=paths.sidecar(LEVELS),
        manifest=paths.data_manifest(PLAN.root),
        record=paths.run_record(LEVELS),
    log:
        LOGS / "data.log",
    benchmark:
        BENCHMARKS / "data.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=0,
    params:
        root=root_of,
        spec=spec_of("data"),
    shell:
        "diffbench data --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
