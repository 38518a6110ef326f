"""The history screen, a run's page, and the comparison of runs."""

from __future__ import annotations

from typing import Final

WORDS: Final[dict[str, str]] = {
    # The table of runs
    "All runs of this desktop, finished and running. Enter opens one. Space marks up to four, "
    "which c compares. Clone puts a run's plan into the form of a new one; replay shows it on "
    "the Live screen as if it went on now.": (
        "이 컴퓨터의 모든 실행입니다. Enter로 열고, 스페이스로 네 개까지 표시해 c로 비교합니다. "
        "복제는 실행의 계획을 새 실행 양식에 넣고, 다시 보기는 지금 진행되는 것처럼 "
        "실시간 화면에 보여 줍니다."
    ),
    "No runs yet.\nStart one: press 2, or type fedconsole run": (
        "아직 실행이 없습니다.\n시작: 2를 누르거나 fedconsole run 을 입력하세요"
    ),
    "Reading the runs…": "실행 기록을 읽는 중…",
    "The runs cannot be read.\nNew ones cannot be kept, either.": (
        "실행 기록을 읽을 수 없습니다.\n새 실행도 저장할 수 없습니다."
    ),
    "make it yours again, or set XDG_STATE_HOME; it is read again every 2 s": (
        "폴더 권한을 고치거나 XDG_STATE_HOME을 바꾸세요. 2초마다 다시 읽습니다"
    ),
    "run": "실행",
    "task": "과제",
    "state": "상태",
    "started": "시작",
    "time": "시간",
    "rounds": "라운드",
    "workers": "워커",
    "loss": "손실",
    "acc": "정확도",
    "accuracy": "정확도",
    "F1": "F1",
    "trend": "추세",
    "running": "진행 중",
    "pausing": "멈추는 중",
    "stalled": "멈춤",
    "completed": "완료",
    "aborted": "중단됨",
    "failed": "실패",
    "crashed": "비정상",
    "unreadable": "읽기 불가",
    "no journal": "기록 없음",
    "Compare": "비교",
    "Replay": "다시 보기",
    "Clone": "복제",
    "Export": "내보내기",
    "Delete": "삭제",
    "it never began: {why}": "시작되지 못했습니다: {why}",
    "it has no journal": "기록이 없습니다",
    "it has no journal: {why}": "기록이 없습니다: {why}",
    "at most {n} runs can be compared": "{n}개까지만 비교할 수 있습니다",
    "run {run} is running; abort it first": "실행 {run}이(가) 진행 중입니다. 먼저 중단하세요",
    "Delete run {run}?": "실행 {run}을(를) 삭제할까요?",
    "Its journal and its model are deleted; exports stay. There is no way back.": (
        "기록과 모델이 삭제되고 내보낸 파일은 남습니다. 되돌릴 수 없습니다."
    ),
    # Exports
    "Export run {run}": "실행 {run} 내보내기",
    "The file goes to {folder}.": "파일은 {folder}에 저장됩니다.",
    "Export: {what}": "내보내기: {what}",
    "Report (Markdown)": "보고서 (Markdown)",
    "Rounds (CSV)": "라운드 (CSV)",
    "Journal (JSON lines)": "기록 (JSON lines)",
    "Losses (SVG)": "손실 (SVG)",
    "written: {path}": "저장됨: {path}",
    "this plan cannot be used again: {why}": "이 계획은 다시 쓸 수 없습니다: {why}",
    # A run's page
    "One run: its losses by round, who was in which round, the table of rounds, the last "
    "evaluation class by class, the plan as far as it is not the default, and the log. "
    "Tab goes from pane to pane.": (
        "실행 하나: 라운드별 손실, 라운드에 참여한 워커, 라운드 표, 클래스별 마지막 평가, "
        "기본값과 다른 계획, 로그. Tab으로 칸을 옮깁니다."
    ),
    "Losses": "손실",
    "Workers": "워커",
    "Rounds": "라운드",
    "Classes": "클래스",
    "Plan": "계획",
    "Log": "로그",
    "Previous pane": "이전 칸",
    "Whole plan": "전체 계획",
    "reading…": "읽는 중…",
    "reading: {n} lines": "읽는 중: {n}줄",
    "if the disk is well, remove it: fedconsole runs rm {run}": (
        "디스크에 이상이 없으면 지우세요: fedconsole runs rm {run}"
    ),
    "what stands before it is shown: {n} lines": "그 앞의 {n}줄까지 보여 줍니다",
    "{n} rounds": "{n}라운드",
    "round": "라운드",
    "s": "초",
    "training": "학습",
    "updates": "업데이트",
    "from": "보낸 워커",
    "class": "클래스",
    "examples": "예제 수",
    "recall": "재현율",
    "precision": "정밀도",
    "test": "평가",
    "p: all of it": "p: 전체 보기",
    "the whole plan": "전체 계획",
    "what is not the default": "기본값과 다른 것",
    "model": "모델",
    "model id": "모델 ID",
    "journal": "기록",
    "reason": "이유",
    "no round was finished": "끝난 라운드가 없습니다",
    "no evaluation by class": "클래스별 평가가 없습니다",
    # Who was in which round
    "worker": "워커",
    "delivered": "보냄",
    "rejected": "거부됨",
    "absent": "없음",
    "at work": "작업 중",
    "not in the cohort": "선택되지 않음",
    "no round was started": "시작된 라운드가 없습니다",
    "Earlier rounds": "앞 라운드",
    "Later rounds": "뒤 라운드",
    "First round": "첫 라운드",
    "Last round": "마지막 라운드",
    # The comparison
    "Up to four runs beside each other: the evaluation after each round, how they ended, and "
    "only those options of their plans that differ. x changes between loss and accuracy.": (
        "실행을 네 개까지 나란히 봅니다: 라운드마다의 평가, 끝난 결과, 서로 다른 계획 항목. "
        "x로 손실과 정확도를 바꿉니다."
    ),
    "Loss or accuracy": "손실/정확도",
    "{metric} of the evaluation after each round": "라운드마다 평가한 {metric}",
    "option": "항목",
    "and {n} more": "그 밖에 {n}개",
    "no evaluation to compare": "비교할 평가가 없습니다",
    "the plans are the same": "계획이 같습니다",
    "no plans to compare": "비교할 계획이 없습니다",
    "none of these runs can be read": "이 실행들은 하나도 읽을 수 없습니다",
}
