"""The help of the command line in Korean: the same commands and options, told in other words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

HELP: Final = {
    # The program
    "Federated learning on real devices: find them, train on them, watch it live.": (
        "실제 장치에서 하는 연합 학습: 장치를 찾고, 학습시키고, 실시간으로 지켜봅니다."
    ),
    "Print the version.": "버전을 출력합니다.",
    "Of the full screen and of help: en or ko. Default: the locale's.": (
        "전체 화면과 도움말의 언어: en 또는 ko. 기본값은 로캘을 따릅니다."
    ),
    "Of lines and tables.": "줄과 표의 색.",
    "Sentences and numbered prompts in place of the full screen.": (
        "전체 화면 대신 문장과 번호 메뉴를 씁니다."
    ),
    "Off: the terminal's own selection.": "끄면 터미널의 선택 기능을 그대로 씁니다.",
    "Install completion for the current shell.": "지금 쓰는 셸에 자동 완성을 설치합니다.",
    "Show completion for the current shell, to copy it or customize the installation.": (
        "지금 쓰는 셸의 자동 완성 스크립트를 보여 줍니다. 복사하거나 직접 설치할 때 씁니다."
    ),
    # run
    "Train on the workers' data, and show it.\n\n"
    "Example: fedconsole run --task digits --virtual 3 --rounds 10": (
        "워커의 데이터로 학습하고 그 과정을 보여 줍니다.\n\n"
        "예: fedconsole run --task digits --virtual 3 --rounds 10"
    ),
    "What to train": "무엇을 학습할지",
    "Who takes part": "누가 참여할지",
    "How long": "얼마나 오래",
    "How workers train": "워커의 학습 방법",
    "Rounds and quorum": "라운드와 정족수",
    "Front end": "화면과 출력",
    "digits, mnist, ecg, ecg-rr or a Python file.": "digits, mnist, ecg, ecg-rr 또는 파이썬 파일.",
    "Start from this model.": "이 모델에서 시작합니다.",
    "Also write the model here.": "모델을 여기에도 씁니다.",
    "Folder with the test set, and with the data of virtual workers.": (
        "시험 데이터와 모의 워커의 데이터가 있는 폴더."
    ),
    "Of all randomness.": "모든 난수의 시드.",
    "Evaluate and simulate on the GPU.": "평가와 모의 워커에 GPU를 씁니다.",
    "A device; may be repeated.": "장치. 여러 번 쓸 수 있습니다.",
    "Every device that answers.": "응답하는 모든 장치.",
    "Simulate workers on this machine.": "이 컴퓨터에서 모의 워커를 돌립니다.",
    "Share kept by workers for tests.": "워커가 시험용으로 남겨 두는 비율.",
    "Rounds to run, or": "실행할 라운드 수(또는 --epochs).",
    "passes over all data.": "전체 데이터를 도는 횟수(에폭).",
    "Batches in a round, or": "라운드당 배치 수(또는 --local-epochs).",
    "passes over the shard.": "자기 데이터를 도는 횟수(로컬 에폭).",
    "When all workers are through, or the first.": (
        "에폭의 끝: 모든 워커가 끝냈을 때(all) 또는 하나가 끝냈을 때(first)."
    ),
    "Stop once reached: accuracy=0.95.": "도달하면 멈출 기준. 예: accuracy=0.95.",
    "Examples at a time.": "한 번에 학습할 예제 수.",
    "The same in evaluation.": "평가할 때의 배치 크기.",
    "Learning rate.": "학습률.",
    "New each round.": "옵티마이저. 라운드마다 새로 시작합니다.",
    "Of sgd.": "sgd의 모멘텀.",
    "Of the optimizer.": "옵티마이저의 가중치 감쇠.",
    "Nesterov momentum.": "네스테로프 모멘텀.",
    "Workers count by examples, or alike.": "워커의 비중: 예제 수에 따라(examples) 또는 똑같이(uniform).",
    "Workers in a round.": "한 라운드에 참여할 워커 수.",
    "Updates that a round needs.": "한 라운드에 필요한 업데이트 수.",
    "Seconds for a round.": "한 라운드의 제한 시간(초).",
    "With too few workers: wait, go on, or fail.": "워커가 모자랄 때: 기다림(wait), 계속(fewer), 실패(fail).",
    "Seconds to wait for them.": "워커를 기다리는 시간(초).",
    "When to test.": "평가 간격.",
    "For scripts: no questions, no full screen.": "스크립트용: 묻지 않고 전체 화면도 열지 않습니다.",
    "One JSON object per event on stdout.": "사건마다 JSON 객체 하나를 stdout에 씁니다.",
    "One sentence per event, nothing moves.": "사건마다 한 문장씩, 움직이는 표시 없이 씁니다.",
    "Print the run's id and leave it running.": "실행 ID만 출력하고 실행은 계속 둡니다.",
    "Only errors and the outcome.": "오류와 결과만 보여 줍니다.",
    "Also batches; -vv everything.": "배치도 보여 줍니다. -vv는 전부.",
    "Check plan and workers, train nothing.": "계획과 워커만 점검하고 학습하지 않습니다.",
    "Abort after so many seconds.": "이 시간(초)이 지나면 중단합니다.",
    "Read this TOML file first.": "이 TOML 파일을 먼저 읽습니다.",
    # Runs that go on
    "Try it out: start some daemons here and train on them; nothing is downloaded.": (
        "맛보기: 이 컴퓨터에서 데몬을 띄우고 학습합니다. 아무것도 내려받지 않습니다."
    ),
    "Daemons to start.": "띄울 데몬 수.",
    "Show a running run from its start on; leaving it leaves it going.": (
        "진행 중인 실행을 처음부터 보여 줍니다. 나가도 실행은 계속됩니다."
    ),
    "Beginning of its id, latest, or all.": "실행 ID의 앞부분, latest 또는 all.",
    "Stop every worker after its current batch; the run keeps its place.": (
        "모든 워커를 지금 배치까지만 하고 멈춥니다. 실행은 그 자리에서 기다립니다."
    ),
    "Let a paused run go on, or take up one whose engine is gone, from its last complete round.": (
        "일시정지한 실행을 계속하거나, 엔진이 사라진 실행을 마지막으로 끝난 라운드부터 이어 갑니다."
    ),
    "End a run; its last checkpoint is kept.": "실행을 끝냅니다. 마지막 체크포인트는 남습니다.",
    "Complete the open round first.": "진행 중인 라운드를 먼저 마칩니다.",
    "Say what a run does that has too few workers or updates.": (
        "워커나 업데이트가 모자란 실행을 어떻게 할지 정합니다."
    ),
    "Wait longer, go on with fewer in this round, or stop.": (
        "더 기다림(wait), 이번 라운드는 적은 수로 계속(fewer), 정지(stop)."
    ),
    "Print a run's log.": "실행의 로그를 출력합니다.",
    "Go on with the run.": "실행을 따라가며 계속 출력합니다.",
    "Draw a screen of the console from stored runs into an SVG file.": (
        "저장된 실행으로 콘솔 화면을 그려 SVG 파일로 저장합니다."
    ),
    "A stored run, or latest; for compare two.": "저장된 실행 또는 latest. compare에는 둘.",
    "What to draw.": "그릴 화면.",
    "Columns and lines.": "가로 칸 수와 줄 수.",
    "The SVG file.": "SVG 파일.",
    "Live, after the line with this number.": "실시간 화면을 이 번호의 줄 다음 상태로 그립니다.",
    # Devices
    "Look for devices: on this machine, by mDNS, in the configuration, where paired ones were.": (
        "장치를 찾습니다: 이 컴퓨터, mDNS, 설정 파일, 페어링한 장치가 있던 곳."
    ),
    "How long to listen; 0: not at all.": "듣는 시간(초). 0이면 듣지 않습니다.",
    "Form of the answer.": "출력 형식.",
    "Pair with a device: it is known here from then on, and this console there.\n\n"
    "Example: ssh kitchen pi-daemon pair | fedconsole pair -": (
        "장치와 페어링합니다. 그 뒤로 이 콘솔과 장치가 서로를 알아봅니다.\n\n"
        "예: ssh kitchen pi-daemon pair | fedconsole pair -"
    ),
    "The line that pi-daemon pair prints, in quotes; - reads it from stdin, so that no shell keeps its secret.": (
        "pi-daemon pair가 출력한 줄(따옴표로 감싸서). -는 stdin에서 읽어 셸 기록에 비밀이 남지 않습니다."
    ),
    "Send shards of a dataset to devices whose owners allow it (pi-daemon --accept-data DIR).\n\n"
    "A transfer that was cut goes on where it was: deal again.\n\n"
    "Example: fedconsole deal data/mnist --name mnist --all": (
        "데이터를 나누어, 받겠다고 한 장치(pi-daemon --accept-data DIR)로 보냅니다.\n\n"
        "전송이 끊기면 다시 실행하세요. 끊긴 곳부터 이어집니다.\n\n"
        "예: fedconsole deal data/mnist --name mnist --all"
    ),
    "What to cut: as pi-daemon's --dataset NAME=SOURCE takes it.": (
        "나눌 데이터: pi-daemon의 --dataset NAME=SOURCE와 같은 형식."
    ),
    "Of the dataset on the devices.": "장치에서 쓸 데이터셋 이름.",
    "Every device that answers and takes data, by name.": "응답하고 데이터를 받는 모든 장치(이름순).",
    "even, dirichlet:ALPHA:SEED, or record (whole ones).": (
        "even, dirichlet:ALPHA:SEED 또는 record(기록 단위)."
    ),
    "Replace other data of that name on the devices.": "장치에 있는 같은 이름의 다른 데이터를 바꿉니다.",
    "Cut and show the shards; send nothing.": "나눈 결과만 보여 주고 보내지 않습니다.",
    "One JSON object a line.": "한 줄에 JSON 객체 하나.",
    "Devices that are known.": "알고 있는 장치.",
    "Ask every known device what it is doing: paired ones, and others that were found.": (
        "페어링했거나 찾은 모든 장치에 무엇을 하고 있는지 묻습니다."
    ),
    "All that a device tells: identity, state, capabilities, datasets.": (
        "장치가 알려 주는 모든 것: 신원, 상태, 성능, 데이터셋."
    ),
    "Name, id or address of a device.": "장치의 이름, ID 또는 주소.",
    "Measure the time to a device and back.": "장치까지의 왕복 시간을 잽니다.",
    "Forget a device that is paired: it is a stranger from then on.": (
        "페어링한 장치를 지웁니다. 그 뒤로는 모르는 장치가 됩니다."
    ),
    "Do not ask.": "묻지 않습니다.",
    "This console's own key.": "이 콘솔의 키.",
    "Print this console's id, as devices show it; made if there is none.": (
        "장치에 표시되는 이 콘솔의 ID를 출력합니다. 없으면 만듭니다."
    ),
    # This machine
    "Check terminal, versions, network, disk and folders; exit 1 if something must be mended.": (
        "터미널, 버전, 네트워크, 디스크, 폴더를 점검합니다. 고칠 것이 있으면 1로 끝납니다."
    ),
    "Print the shell's completion script; `--install-completion` installs it.": (
        "셸의 자동 완성 스크립트를 출력합니다. 설치는 `--install-completion`."
    ),
    "What is configured, and where.": "무엇이 어디에서 설정되었는지.",
    "Every setting with its effective value.": "모든 설정과 실제로 쓰이는 값.",
    "Where each value comes from.": "값마다 어디에서 왔는지.",
    "The files that are looked for, the strongest first.": "찾는 설정 파일. 우선하는 것부터.",
    "Check files and environment.": "설정 파일과 환경 변수를 점검합니다.",
    "Open a configuration file in $VISUAL or $EDITOR, and check it afterwards.": (
        "설정 파일을 $VISUAL 또는 $EDITOR로 열고, 닫은 뒤 점검합니다."
    ),
    "Edit this file, not your own.": "자기 설정 파일 대신 이 파일을 엽니다.",
    # Runs that are stored
    "List, show, export and remove runs.": "실행을 나열하고, 보고, 내보내고, 지웁니다.",
    "All runs, the newest last.": "모든 실행. 최근 것이 마지막입니다.",
    "One run: how it ended, its plan, its rounds, and its last test class by class.": (
        "실행 하나: 어떻게 끝났는지, 계획, 라운드, 클래스별 마지막 평가."
    ),
    "Write a run's journal, rounds, report or picture to stdout, or its model to a file.": (
        "실행의 기록, 라운드, 보고서, 그림을 stdout에 쓰거나 모델을 파일로 내보냅니다."
    ),
    "The journal, a line each.": "기록을 한 줄씩.",
    "The table of rounds.": "라운드 표.",
    "A report for people.": "사람이 읽는 보고서.",
    "The losses by round, drawn.": "라운드별 손실 그림.",
    "Copy the model here.": "모델을 여기에 복사합니다.",
    "How runs ended, and in what their plans differ.": "실행들의 결과와 계획의 차이.",
    "Two to four of them.": "둘에서 넷까지.",
    "Show a run on the Live screen as if it went on now.": (
        "저장된 실행을 지금 진행되는 것처럼 실시간 화면에 보여 줍니다."
    ),
    "How many times faster than the run; 1 to 60.": "실제보다 몇 배 빠르게. 1에서 60까지.",
    "Delete a run's folder, its model included.": "실행의 폴더를 모델과 함께 지웁니다.",
}
"""English help -> Korean. What has no words in it, such as a list of names, has no twin."""

_DEFAULT: Final = re.compile(r"(.*) Default ([^ ]+)\.", re.DOTALL)
OF_TYPER: Final = {
    "ARGUMENTS_PANEL_TITLE": "인자",
    "OPTIONS_PANEL_TITLE": "옵션",
    "COMMANDS_PANEL_TITLE": "명령",
    "DEFAULT_STRING": "[기본값: {}]",
    "REQUIRED_LONG_STRING": "[필수]",
}
_HELP_OPTION: Final = "이 도움말을 보여 주고 끝냅니다."


def twin_of(text: str) -> str:
    """The same in Korean, with the default that may stand at its end."""
    if text in HELP:
        return HELP[text]
    if (found := _DEFAULT.fullmatch(text)) is not None and found[1] in HELP:
        return f"{HELP[found[1]]} 기본값 {found[2]}."
    return text


def translate(command: Any) -> None:
    """Put Korean into a command of Typer and all that are below it; its help is drawn afterwards."""
    from typer import rich_utils

    for name, words in OF_TYPER.items():
        setattr(rich_utils, name, words)
    for context in _contexts(command, None):
        below = context.command
        below.help = twin_of(below.help or "")
        below.get_help_option(context).help = _HELP_OPTION
        for param in below.params:
            for field in ("help", "rich_help_panel"):
                if text := getattr(param, field, None):
                    setattr(param, field, twin_of(text))


def _contexts(command: Any, parent: Any) -> Iterator[Any]:
    context = command.context_class(command, parent=parent, **command.context_settings)
    yield context
    for below in getattr(command, "commands", {}).values():
        yield from _contexts(below, context)
