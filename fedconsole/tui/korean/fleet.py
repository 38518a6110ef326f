"""The fleet."""

from __future__ import annotations

from typing import Final

WORDS: Final = {
    "No devices yet; still looking.\n"
    "\n"
    "Try it out with devices on this machine:  fedconsole demo\n"
    "On a device:  pi-daemon --pair --dataset digits=sample\n"
    "Then here, with the line that it prints:  p": (
        "아직 장치가 없습니다. 계속 찾는 중입니다.\n"
        "\n"
        "이 컴퓨터에서 시험해 보기:  fedconsole demo\n"
        "장치에서:  pi-daemon --pair --dataset digits=sample\n"
        "그다음 여기에서, 장치가 출력한 줄로:  p"
    ),
    "Every device that is paired, and those that were found: by mDNS, in the configuration, or on "
    "this machine. One that is not paired is only a name. KEY CHANGED means that somebody else "
    "answers in the place of a paired device; nothing is sent there. Stale means that a linked device "
    "has been silent for more than 6 seconds; offline, that its link is gone. Mark devices and press "
    "n to train on them.": (
        "페어링된 모든 장치와, mDNS, 설정, 이 컴퓨터에서 찾은 장치입니다. 페어링되지 않은 장치는 이름일 뿐입니다. "
        "'키 바뀜'은 페어링된 장치 자리에서 다른 누군가가 응답한다는 뜻이며, 그곳에는 아무것도 보내지 않습니다. "
        "'응답 지연'은 연결된 장치가 6초 넘게 조용하다는 뜻이고, '오프라인'은 연결이 끊겼다는 뜻입니다. "
        "장치를 표시하고 n을 누르면 그 장치로 학습합니다."
    ),
    "Looking for devices, here and on the network…": "이 컴퓨터와 네트워크에서 장치를 찾는 중…",
    "No devices: nobody looks for them any more.\n"
    "\n"
    "Pair one with  p\n"
    "What may be in the way:  fedconsole doctor": (
        "장치가 없습니다. 찾기가 멈췄습니다.\n"
        "\n"
        "페어링하기:  p\n"
        "무엇이 문제인지 보기:  fedconsole doctor"
    ),
    "no multicast here ({why}): add devices by address with +": (
        "멀티캐스트를 쓸 수 없습니다 ({why}): +로 주소를 넣어 장치를 추가하세요"
    ),
    "no paired device can be reached: {why}": "페어링된 장치에 연결할 수 없습니다: {why}",
    "a paired device is not shown: {why}": "페어링된 장치 하나를 표시할 수 없습니다: {why}",
    "devices on this machine are not found: {why}": "이 컴퓨터의 장치를 찾을 수 없습니다: {why}",
    "the devices at {why} have one identity, as after copying an SD card: stop pi-daemon on one of them, "
    "delete its state folder, and start it again": (
        "{why}의 장치들이 SD 카드를 복사한 뒤처럼 한 신원을 씁니다: 그중 하나에서 pi-daemon을 멈추고 상태 "
        "폴더를 지운 뒤 다시 시작하세요"
    ),
    "more than {why} devices: the others are not shown": (
        "장치가 {why}개를 넘습니다: 나머지는 보이지 않습니다"
    ),
    "the search for devices has stopped ({why}): quit and start fedconsole again": (
        "장치 찾기가 멈췄습니다 ({why}): fedconsole을 끝내고 다시 시작하세요"
    ),
    "Details": "자세히",
    "New run with these": "이 장치로 새 실행",
    "Add a device": "장치 추가",
    "Pair a device": "장치 페어링",
    "Forget": "잊기",
    "Forget {name}?": "{name}을(를) 잊을까요?",
    "Its key is {id}. Nothing is sent to it any more; to use it again, it must be paired anew.": (
        "이 장치의 키는 {id}입니다. 앞으로 아무것도 보내지 않으며, 다시 쓰려면 새로 페어링해야 합니다."
    ),
    "Give pi-daemon pair on the device, and paste the line here that it prints. "
    "It is good for ten minutes, and once.": (
        "장치에서 pi-daemon pair를 실행하고, 출력된 줄을 여기에 붙여 넣으세요. 10분 동안, 한 번만 쓸 수 있습니다."
    ),
    "device  {id}\nat      {address}": "장치  {id}\n주소  {address}",
    "paired with {name}": "{name}와(과) 페어링했습니다",
    "it is not paired": "페어링되지 않은 장치입니다",
    "IDENTITY CHANGED: {name} at {address} has the key {found}…, not {known}…. Somebody may "
    "be in between: nothing was sent. Only if you know why: forget it (Del), and pair it anew": (
        "신원이 바뀜: {address}의 {name}의 키가 {known}…이 아니라 {found}…입니다. 누군가 중간에 있을 수 있어 "
        "아무것도 보내지 않았습니다. 이유를 알 때만 잊고(Del) 새로 페어링하세요"
    ),
    "KEY CHANGED": "키 바뀜",
    "not paired": "미페어링",
    "links full": "연결 꽉 참",
    "paired key": "페어링 키",
    "key found": "응답한 키",
    "own key": "이 콘솔 키",
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
    "swap in use": "쓰는 스왑",
    "disk free": "남은 디스크",
    "disk {free}": "디스크 {free}",
    "clock": "시계",
    "clock {off}": "시계 {off}",
    "right": "맞음",
    "HOT!": "과열",
    "hot": "고온",
    "warm": "중온",
    "{time} ahead": "{time} 빠름",
    "{time} behind": "{time} 느림",
    "round trip": "왕복 시간",
    "idle": "쉼",
    "preparing": "준비 중",
    "ready": "준비됨",
    "evaluating": "평가 중",
    "delivering": "전달 중",
}
