# With `shards` in the benchmark file, some of the chunks of a sample job; gone once the job has gathered them.
rule shard:
    input:
        inputs_of("shard"),
    output:
        product=temp(SHARD),
        sidecar=temp(paths.sidecar(SHARD)),
        record=temp(paths.run_record(SHARD)),
    log:
        LOGS / f"shard/{RUN_NAME}/{{solver}}/{{shard}}.log",
    benchmark:
        BENCHMARKS / f"shard/{RUN_NAME}/{{solver}}/{{shard}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        root=root_of,
        spec=spec_of("shard"),
    shell:
        "diffbench shard --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"


rule sample:
    input:
        inputs_of("sample"),
    output:
        product=SAMPLES,
        sidecar=paths.sidecar(SAMPLES),
        record=paths.run_record(SAMPLES),
        picture=paths.grid(*RUN, "{solver}"),
    log:
        LOGS / f"sample/{RUN_NAME}/{{solver}}.log",
    benchmark:
        BENCHMARKS / f"sample/{RUN_NAME}/{{solver}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=lambda wildcards: 0 if PLAN.shards(job("sample", wildcards)) else GPUS,
    params:
        root=root_of,
        spec=spec_of("sample"),
    shell:
        "diffbench sample --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
