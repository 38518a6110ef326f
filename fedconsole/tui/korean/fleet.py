"""The fleet."""

from __future__ import annotations

from typing import Final

WORDS: Final = {
    "No devices yet; still looking.\n"
    "\n"
    "Try it out with devices on this machine:  fedconsole demo\n"
    "On a device:  pi-daemon --dataset digits=sample\n"
    "Add one by its address with  +": (
        "아직 장치가 없습니다. 계속 찾는 중입니다.\n"
        "\n"
        "이 컴퓨터에서 시험해 보기:  fedconsole demo\n"
        "장치에서:  pi-daemon --dataset digits=sample\n"
        "주소로 추가하기:  +"
    ),
    "Every device that was found, by mDNS, in the configuration, on this machine, or where one was "
    "seen before. Stale means that a linked device has been silent for more than 6 seconds; offline, "
    "that its link is gone. Mark devices and press n to train on them.": (
        "mDNS, 설정, 이 컴퓨터, 또는 전에 본 주소에서 찾은 모든 장치입니다. '응답 지연'은 연결된 장치가 6초 넘게 "
        "조용하다는 뜻이고, '오프라인'은 연결이 끊겼다는 뜻입니다. 장치를 표시하고 n을 누르면 그 장치로 학습합니다."
    ),
    "Details": "자세히",
    "New run with these": "이 장치로 새 실행",
    "Add a device": "장치 추가",
    "online": "온라인",
    "stale": "응답 지연",
    "offline": "오프라인",
    "new": "발견됨",
    "state": "상태",
    "name": "이름",
    "doing": "하는 일",
    "data": "데이터",
    "load": "부하",
    "seen": "응답",
    "address": "주소",
    "run": "실행",
    "disk": "디스크",
    "machine": "기종",
    "version": "버전",
    "no dataset": "데이터 없음",
    "no device is chosen": "선택한 장치가 없습니다",
    ", heard {ago} ago": ", {ago} 전 응답",
    "last 10 minutes": "최근 10분",
    "datasets": "데이터셋",
    "{n} examples, {classes} classes, {shape} {dtype}, content {hash}": (
        "예 {n}개, 클래스 {classes}개, {shape} {dtype}, 내용 {hash}"
    ),
    "{n} marked": "{n}개 표시됨",
    "found by": "찾은 곳",
    "device id": "장치 id",
    "memory": "메모리",
    "largest model": "최대 모델",
    "takes data": "데이터 받기",
    "no": "아니오",
    "held by": "제어 중",
    "temperature": "온도",
    "throttling": "성능 제한",
    "RAM in use": "쓰는 RAM",
    "disk free": "남은 디스크",
    "round trip": "왕복 시간",
    "idle": "쉼",
    "preparing": "준비 중",
    "ready": "준비됨",
    "evaluating": "평가 중",
    "delivering": "전달 중",
}
