# Wiring only: what runs is decided by diffbench/plan from config/, what a job does by `diffbench STAGE`.
#
#   snakemake --cores all                                         the embedded benchmark, config/digits.yaml
#   snakemake --cores all --configfile FILE [--config only=vp]    another, or a part of it
#   snakemake --report report.html [--configfile FILE]            all that a finished run made, in one file
from snakemake.utils import min_version

min_version("9.8")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/jobs.smk"
include: "workflow/rules/tables.smk"


localrules:
    all,
    tables,


rule all:
    default_target: True
    input:
        TABLES,
        paths.tables_complete(PLAN.root),
        [product for job in PLAN.jobs for product in job.products],
        [path for job in PLAN.jobs for path in job.extras if path.suffix == ".png"],


# A job starts in a tenth of the time when a process that has imported torch forks it. Not on a cluster: there a job belongs
# to its own allocation. And only on Linux: elsewhere a process with libraries of the system must not be forked. DIFFBENCH_SERVER=
# (empty) goes without.
onstart:
    global SERVER
    heed_apart()
    check_inputs()
    write_specs()
    note_places()
    if (
        sys.platform == "linux"
        and workflow.local_exec
        and VARIABLE not in os.environ
        and len(list(workflow.dag.needrun_jobs())) >= SERVED
    ):
        SERVER, socket = start_server()
        os.environ[VARIABLE] = str(socket)
    begin_view()


onsuccess:
    end_view()
    spec_files.clear(PLAN.root)
    finished.clear(PLAN.root)


# What a failed run still has goes into the tables; the exit status stays 1.
onerror:
    end_view()
    shell(RESCUE)
