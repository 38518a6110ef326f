"""What is wrong with a value of the form. The field's name stands above, so that only the value is told."""

from __future__ import annotations

from typing import Final

SENTENCES: Final = {
    "there are no workers: choose some on the right, or say how many to simulate": (
        "워커가 없습니다: 오른쪽에서 고르거나 모의 워커 수를 적으세요"
    ),
    "workers named twice: {names}; name each once": "두 번 고른 워커: {names}. 한 번씩만 고르세요",
    "there is no task {task}; there are {tasks}, or FILE.py": (
        "{task} 과제는 없습니다. {tasks} 또는 FILE.py를 쓰세요"
    ),
    "{one} is {a} and {other} is {b}: give one of them": "둘 중 하나만 적으세요: {a} 또는 {b}",
    "{name} is {value}: expected 1 or more": "{value}: 1 이상이어야 합니다",
    "{name} is {value}: expected at most {most}": "{value}: {most} 이하여야 합니다",
    "{name} is {value}: expected a whole number": "{value}: 정수를 적으세요",
    "{name} is {value}: expected a number": "{value}: 숫자를 적으세요",
    "{name} is {value}: expected a number nearer to 0": "{value}: 0에 더 가까운 숫자를 적으세요",
    "{name} is {value}: a batch has at least 1 example": "{value}: 배치에는 예제가 1개 이상 있어야 합니다",
    "{name} is {value}: expected a finite learning rate above 0, such as {such}": (
        "{value}: 0보다 큰 유한한 학습률을 적으세요. 예: {such}"
    ),
    "{name} is {value}: expected 0 or more, and below 1": "{value}: 0 이상 1 미만이어야 합니다",
    "{name} is {value}, which {optimizer} does not take: use sgd or 0": (
        "{value}: {optimizer}에는 없는 값입니다. sgd를 고르거나 0으로 두세요"
    ),
    "nesterov needs sgd with a momentum above 0: give one, such as {such}": (
        "nesterov에는 0보다 큰 모멘텀과 sgd가 필요합니다. 예: {such}"
    ),
    "{name} is {value}: expected a finite value, 0 or more": "{value}: 0 이상의 유한한 값이어야 합니다",
    "{name} is {value}: expected a finite value": "{value}: 유한한 값이어야 합니다",
    "{name} is {value}: expected a share of the examples, 0 or more and below 1": (
        "{value}: 예제 중 차지하는 비율로, 0 이상 1 미만이어야 합니다"
    ),
    "{name} is {value}: a run must end when all go quiet; give seconds above 0, at most {most}": (
        "{value}: 0보다 크고 {most} 이하인 초를 적으세요. 모두 조용해지면 실행이 끝나야 합니다"
    ),
    "{name} is {value}: expected 'round', 'epoch' or a number of rounds": (
        "{value}: round, epoch 또는 라운드 수를 적으세요"
    ),
    "{name} is {value}: expected round, epoch or a number of rounds": (
        "{value}: round, epoch 또는 라운드 수를 적으세요"
    ),
    "{name} is {value}: expected METRIC=VALUE, such as {such}": "{value}: METRIC=VALUE로 적으세요. 예: {such}",
    "{name} is {value}: expected 0 to {most} virtual workers": "{value}: 모의 워커는 0개에서 {most}개까지입니다",
    "{name} is {value}: expected 1 to {most}, the number of workers": (
        "{value}: 1에서 워커 수인 {most}까지여야 합니다"
    ),
    "{name} is {value}: no round could reach it; expected 1 to {most}, the size of a cohort": (
        "{value}: 어느 라운드도 채울 수 없습니다. 1에서 {most}까지여야 합니다"
    ),
    "{name} is {value}: expected 0 to {most}": "{value}: 0에서 {most}까지여야 합니다",
    "{name} is {value}: {why}": "{value}: 쓸 수 없는 값입니다 ({why})",
}
"""The more exact ones first."""
