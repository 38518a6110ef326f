"""The form of a new run."""

from __future__ import annotations

from typing import Final

WORDS: Final = {
    "A run, set up. What is left empty has its default, which is shown dim. Choose workers on the "
    "right with Space, or simulate some on this machine. F5 tries a batch on each of them and says how "
    "long the run will take; F9 starts it. Below stands the command line that does the same.": (
        "실행을 준비하는 화면입니다. 비워 둔 칸은 흐리게 보이는 기본값을 씁니다. 오른쪽에서 Space로 워커를 고르거나 "
        "이 컴퓨터에서 모의 워커를 쓰세요. F5는 워커마다 한 배치를 시험해 걸릴 시간을 알려 주고, F9는 시작합니다. "
        "아래에는 같은 일을 하는 명령줄이 있습니다."
    ),
    "^Y copies all of it": "^Y: 전체 복사",
    "Fields": "칸",
    "Previous field": "이전 칸",
    "Start": "시작",
    "Check": "점검",
    "As last run": "지난 실행처럼",
    "Copy the command": "명령 복사",
    "Write run.toml": "run.toml 쓰기",
    "Clear the form": "비우기",
    "task": "과제",
    "or epochs": "또는 에폭",
    "epochs": "에폭 수",
    "batches a round": "라운드당 배치",
    "or local epochs": "또는 로컬 에폭",
    "batch size": "배치 크기",
    "learning rate": "학습률",
    "optimizer": "옵티마이저",
    "momentum": "모멘텀",
    "seed": "시드",
    "simulate workers": "모의 워커 수",
    "min. updates": "최소 업데이트",
    "workers a round": "라운드당 워커",
    "round deadline, s": "라운드 기한(초)",
    "quorum wait, s": "정족수 대기(초)",
    "too few workers": "워커 부족 시",
    "weighting": "가중 방식",
    "epoch ends with": "에폭의 끝",
    "test every": "시험 간격",
    "stop at": "멈출 기준",
    "holdout": "홀드아웃",
    "weight decay": "가중치 감쇠",
    "test batch size": "시험 배치 크기",
    "start from": "시작 모델",
    "save model to": "모델 저장",
    "data folder": "데이터 폴더",
    "digits; or mnist, ecg, ecg-rr, FILE.py": "digits; 또는 mnist, ecg, ecg-rr, FILE.py",
    "there is no such file here": "여기에 그런 파일이 없습니다",
    "round, epoch or a number": "round, epoch 또는 숫자",
    "all": "모두",
    "more": "더 보기",
    "note": "비고",
    "{s} s a batch, {memory}": "배치당 {s}초, {memory}",
    "has no {dataset}": "{dataset} 없음",
    "not found": "못 찾음",
    "not there now: {names}; a run would wait for them": (
        "지금 없음: {names}; 시작하면 기다립니다"
    ),
    "Mend it or choose other workers, then F5 again": (
        "고치거나 다른 워커를 고른 뒤 F5를 다시 누르세요"
    ),
    "Looking for devices…\nOr simulate some workers.": "장치를 찾는 중…\n모의 워커를 쓸 수도 있습니다.",
    "No devices found yet.\nSimulate some, or add one on the Fleet screen.": (
        "아직 장치가 없습니다.\n모의 워커를 쓰거나 장치 화면에서 추가하세요."
    ),
    "the form shows that run's plan": "그 실행의 설정을 불러왔습니다",
    "to be mended: {fields}": "고칠 칸: {fields}",
    "ready to start: F9": "시작할 수 있습니다: F9",
    "no chosen worker has {dataset}: deal it, or choose others": (
        "고른 워커 중 {dataset}이(가) 있는 것이 없습니다: 나누어 주거나 다른 워커를 고르세요"
    ),
    "starting the engine…": "엔진을 시작하는 중…",
    "trying a batch on every worker… {n} of {all} answered, {s} s": (
        "워커마다 한 배치를 시험하는 중… {all}개 중 {n}개 응답, {s}초"
    ),
    "the form was changed during the check: F5 checks it as it is now": (
        "점검하는 동안 설정이 바뀌었습니다: F5로 지금 설정을 점검하세요"
    ),
    "{n} workers are ready": "워커 {n}개 준비됨",
    "training will take about {time}; sending and tests come on top": (
        "학습에 약 {time} 걸립니다 (전송과 시험 제외)"
    ),
    "there is no run yet": "아직 실행이 없습니다",
    "{path} exists; move it away first": "{path} 이(가) 이미 있습니다. 먼저 옮기세요",
}
