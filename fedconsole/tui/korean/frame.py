"""The bars, the palette, the help and the dialogs of the app."""

from __future__ import annotations

from typing import Final

WORDS: Final = {
    "Fleet": "장치",
    "New run": "새 실행",
    "Live": "실시간",
    "History": "기록",
    "Help": "도움말",
    "Commands": "명령",
    "Quit": "종료",
    "Back": "뒤로",
    "Alarms, and commands so far": "경보와 지금까지의 명령",
    "Commands so far": "지금까지의 명령",
    "Copy": "복사",
    "Save a picture": "화면 저장",
    "Suspend": "일시 중단",
    "Leave at once": "바로 나가기",
    "Cancel": "취소",
    "Previous": "이전",
    "Next": "다음",
    "Detach": "나가기(실행 유지)",
    "Abort": "중단",
    "Run {run} goes on": "실행 {run}이(가) 계속됩니다",
    "Detach leaves it going; fedconsole attach {run} comes back to it. "
    "Abort ends it; the model of the last complete round is kept.": (
        "나가도 실행은 계속되며 fedconsole attach {run} 으로 다시 볼 수 있습니다. "
        "중단하면 마지막으로 끝난 라운드의 모델이 남습니다."
    ),
    "Search for commands…": "명령 찾기…",
    "Go to {screen}": "{screen} 화면으로",
    "Theme: {name}": "테마: {name}",
    "Open run {run}": "실행 {run} 열기",
    "Device {name}": "장치 {name}",
    "not possible now": "지금은 불가",
    "not possible now: {why}": "지금은 불가: {why}",
    "its engine is gone": "엔진이 없습니다",
    "the run has ended": "실행이 끝났습니다",
    "it stops after this round already": "이미 이 라운드 뒤에 정지합니다",
    "the run is {phase}": "실행이 {phase}",
    "no run is chosen": "고른 실행이 없습니다",
    "mark two runs or more with Space": "스페이스로 실행을 둘 이상 표시하세요",
    "a check or a start goes on": "점검 또는 시작이 진행 중입니다",
    "the form is not complete": "양식이 아직 완성되지 않았습니다",
    "nothing to copy here": "복사할 것이 없습니다",
    "copied: {text}": "복사됨: {text}",
    "(in tmux this needs: set -g set-clipboard on)": "(tmux에서는 set -g set-clipboard on 필요)",
    "Bell: on": "벨 켜기",
    "Bell: off": "벨 끄기",
    "Signs: {name}": "기호: {name}",
    "Only the lines of {worker}": "{worker} 의 줄만",
    "picture saved: {path}": "화면을 저장했습니다: {path}",
    "cannot write to {folder}: {why}": "{folder}에 쓸 수 없습니다: {why}",
    "to keep it: {setting} under [console] in config.toml": (
        "계속 쓰려면 config.toml의 [console] 아래에 {setting}"
    ),
    "Language: {name}": "언어: {name}",
    "terminal too small (need {need})": "터미널이 너무 작습니다 ({need} 필요)",
    "Escape closes this.": "Esc로 닫습니다.",
    "Run {run} ends": "실행 {run}이(가) 끝납니다",
    "The demo's devices and its run end with the console; the model is kept.": "데모의 장치와 실행은 콘솔과 함께 끝나며 모델은 보존됩니다.",
    "Leave": "나가기",
    "Everywhere": "모든 화면",
    "word, !word, ~regex, field:word; Enter keeps, Esc clears": "단어, !단어, ~정규식, 필드:단어; Enter 유지, Esc 지우기",
    "Table": "표",
    "Plot": "그래프",
    "Timeline": "참여 기록",
}
