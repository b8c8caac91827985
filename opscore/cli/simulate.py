"""`opscore simulate agentkit` and `opscore simulate agent`: their switches."""

from typing import Annotated

import typer

from opscore.simulators.words import Forwarding, Style

simulate = typer.Typer(
    help="Stand in for AgentKit or for an agent. Variables of .env count as well.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Host = Annotated[str, typer.Option(help="The address to listen on.")]
FailRate = Annotated[
    float, typer.Option(min=0, max=1, help="The share of tasks that fail, from 0 to 1.")
]
Seed = Annotated[int | None, typer.Option(help="Makes chance repeatable.")]


@simulate.callback()
def read_env_file() -> None:
    from opscore.cli.environment import use_env_file  # noqa: PLC0415 - loaded on use

    use_env_file()


@simulate.command()
def agentkit(
    *,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    webhook_url: Annotated[
        str,
        typer.Option(
            envvar="OPSCORE_WEBHOOK_URL", help="Where registrations of agents are announced."
        ),
    ] = "http://127.0.0.1:8000/v1/opscore/internal/agent/notify",
    webhook_secret: Annotated[
        str | None,
        typer.Option(
            envvar="OPSCORE_WEBHOOK_SECRET",
            help="Signs the webhook; of several, comma-separated, the first. None: no webhook.",
        ),
    ] = None,
    webhook_delay: Annotated[float, typer.Option(min=0, help="Seconds before the webhook.")] = 0,
    forwarding: Annotated[
        Forwarding, typer.Option(help="Whether accepted tasks reach their agents.")
    ] = "works",
    silent: Annotated[
        bool, typer.Option("--silent", help="Accept tasks, deliver none and log nothing.")
    ] = False,
    slow: Annotated[float, typer.Option(min=0, help="Seconds before a task is taken.")] = 0,
    answer_delay: Annotated[
        float, typer.Option(min=0, help="Seconds from taking a task to its answer.")
    ] = 0,
    forward_delay: Annotated[
        float, typer.Option(min=0, help="Seconds from taking a task to its delivery.")
    ] = 0,
    fail_rate: FailRate = 0,
    fail_status: Annotated[
        int, typer.Option(min=400, max=599, help="The status of a task that fails.")
    ] = 500,
    retry_after: Annotated[
        float | None, typer.Option(min=0, help="Sent as Retry-After with such a failure.")
    ] = None,
    fault_rate: Annotated[
        float, typer.Option(min=0, max=1, help="The share of tasks answered wrongly, from 0 to 1.")
    ] = 0,
    late: Annotated[float, typer.Option(min=0, help="Seconds that a late answer takes.")] = 40,
    require_key: Annotated[
        str | None, typer.Option(help="Refuse requests without this bearer token.")
    ] = None,
    seed: Seed = None,
) -> None:
    """Behave as AgentKit: register agents, announce them, accept tasks and forward them."""
    from opscore.cli.simulator_runs import run_agentkit  # noqa: PLC0415 - loaded on use
    from opscore.simulators.behaviour import AgentKitBehaviour  # noqa: PLC0415 - loaded on use

    behaviour = AgentKitBehaviour(
        forwarding=forwarding,
        fail_rate=fail_rate,
        fail_status=fail_status,
        retry_after=retry_after,
        fault_rate=fault_rate,
        late=late,
        silent=silent,
        slow=slow,
        answer_delay=answer_delay,
        forward_delay=forward_delay,
        webhook_delay=webhook_delay,
    )
    raise typer.Exit(
        run_agentkit(
            host=host,
            port=port,
            webhook_url=webhook_url,
            webhook_secret=webhook_secret,
            required_key=require_key,
            behaviour=behaviour,
            seed=seed,
        )
    )


@simulate.command()
def agent(
    *,
    name: Annotated[str, typer.Option(help="Its name; AgentKit takes each only once.")],
    capability: Annotated[
        list[str] | None,
        typer.Option(
            help="What it can do, several times if need be. research, analysis and writing "
            "do a little work; any other, or none, gives its parameters back."
        ),
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="OPSCORE_API_KEY", help="The key of Ops-Core.")],
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    agentkit_url: Annotated[
        str, typer.Option(envvar="AGENTKIT_API_URL", help="Where it registers.")
    ] = "http://127.0.0.1:8080",
    opscore_url: Annotated[
        str, typer.Option(envvar="OPSCORE_API_URL", help="Where it reports.")
    ] = "http://127.0.0.1:8000",
    public_endpoint: Annotated[
        str | None,
        typer.Option(help="The URL under which others reach its /task route."),
    ] = None,
    direct_register: Annotated[
        bool, typer.Option("--direct-register", help="Register at Ops-Core, without AgentKit.")
    ] = False,
    agent_id: Annotated[
        str | None,
        typer.Option(
            help="The id under which it was registered already; "
            "with --direct-register, the id to register."
        ),
    ] = None,
    style: Annotated[
        Style, typer.Option(help="How it speaks; see the guide 'Simulate AgentKit and agents'.")
    ] = "reports",
    task_ids: Annotated[
        bool | None,
        typer.Option("--task-ids/--no-task-ids", help="Whether reports name the task."),
    ] = None,
    works_first: Annotated[
        bool, typer.Option("--works-first", help="Answer a task only when it is done.")
    ] = False,
    reports_first: Annotated[
        bool, typer.Option("--reports-first", help="Answer a task after all reports on it.")
    ] = False,
    work_seconds: Annotated[float, typer.Option(min=0, help="How long a task takes.")] = 2,
    announce: Annotated[
        bool, typer.Option(help="Whether it reports that it is idle when it has registered.")
    ] = True,
    silent: Annotated[
        bool, typer.Option("--silent", help="Accept tasks and never report.")
    ] = False,
    slow_answer: Annotated[
        float, typer.Option(min=0, help="Seconds before a task is answered.")
    ] = 0,
    report_delay: Annotated[float, typer.Option(min=0, help="Seconds before each report.")] = 0,
    fail_rate: FailRate = 0,
    fail_first: Annotated[int, typer.Option(min=0, help="How many tasks fail at first.")] = 0,
    refuse: Annotated[bool, typer.Option("--refuse", help="Answer every task with 503.")] = False,
    crash_after: Annotated[
        int | None,
        typer.Option(min=0, help="After so many tasks, die in the middle of the next."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="How many tasks it takes at once; no limit if unset.")
    ] = None,
    seed: Seed = None,
) -> None:
    """Behave as an agent: register, take tasks, work and report."""
    from opscore.cli.simulator_runs import run_agent  # noqa: PLC0415 - loaded on use
    from opscore.simulators.agent import SimulatedAgent  # noqa: PLC0415 - loaded on use
    from opscore.simulators.behaviour import AgentBehaviour  # noqa: PLC0415 - loaded on use

    behaviour = AgentBehaviour(
        style=style,
        task_ids=task_ids,
        works_first=works_first or None,
        reports_first=reports_first or None,
        work_seconds=work_seconds,
        announce=announce,
        silent=silent,
        slow_answer=slow_answer,
        report_delay=report_delay,
        fail_rate=fail_rate,
        fail_first=fail_first,
        refuse=refuse,
        crash_after=crash_after,
        concurrency=concurrency,
    )
    registers = direct_register or agent_id is None
    raise typer.Exit(
        run_agent(
            lambda: SimulatedAgent(
                name=name,
                capabilities=capability or (),
                opscore_url=opscore_url,
                api_key=api_key,
                agentkit_url=None if direct_register else agentkit_url,
                agent_id=agent_id,
                behaviour=behaviour,
                seed=seed,
            ),
            host=host,
            port=port,
            public_endpoint=public_endpoint,
            registers=registers,
        )
    )
