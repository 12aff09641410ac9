"""What agents are told beside the customer's words: why, what was said, what went wrong. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from chalicelib import identity
from chalicelib.policy import Language
from chalicelib.schema import Conversation, Level, Message, Outcome, Ticket, Verdict

MAY_HAVE_ARRIVED = (
    "the connection broke while it was being sent, so it may or may not have arrived; "
    "send it again if the customer does not react"
)

PARTED = (
    "somebody who had asked in this conversation turned out to be another customer after this was "
    "written: look whom it is meant for, and send it again"
)

NO_LONGER_PROVEN = "who asked first is not proven to be the same person any more"

NO_FILES = "none of its files could be fetched from the helpdesk, and it has no words"

OPTED_OUT = (
    "the customer has opted out of messages at this address; "
    "they can opt in again by writing START there"
)


def of(message: Message, conversation: Conversation, language: Language = "en") -> list[str]:
    """The notes that go with an inbound message, in the agents' language."""
    say = _WORDS[language]
    notes: list[str] = []
    verdict = message.verdict
    if verdict:
        notes += _of_verdict(verdict, message, conversation, say)
    if verdict and verdict.faq_id and _leads_anywhere(verdict):
        notes.append(_of_entry(verdict, say))
    _, level = identity.sender(message)
    if message.consent:
        notes.append(say[f"opted_{message.consent.choice}"])
    if level is Level.CLAIMED:
        source = identity.own_source(message)
        notes.append(say["claimed"].format(source=source, address=message.address))
    return notes


def _of_verdict(
    verdict: Verdict, message: Message, conversation: Conversation, say: Mapping[str, str]
) -> list[str]:
    if verdict.rule == "unhelpful":
        at = f"{verdict.told_at:%Y-%m-%d %H:%M} UTC" if verdict.told_at else "?"
        return [say["unhelpful"].format(at=at)]
    if verdict.rule == "undone" and verdict.outcome is Outcome.NEW:
        lines = [say["undone"].format(why=verdict.reason, score=verdict.score or 0)]
        lines += [say["told_before"].format(said=verdict.said)] if verdict.said else []
        return ["\n".join(lines)]
    if verdict.outcome in (Outcome.REPEAT, Outcome.RELATED):
        found = [*_why(verdict, message, conversation, say), *_what_became(verdict, say)]
        return ["\n".join(found)]
    return []


def _why(
    verdict: Verdict, message: Message, conversation: Conversation, say: Mapping[str, str]
) -> Iterator[str]:
    """Why it joined: the score, the earlier question, what both say, what speaks against it."""
    yield say[f"asked_{verdict.outcome}"].format(
        channel=message.channel.value, reason=verdict.reason, score=verdict.score or 0
    )
    closest = next(
        (q for q in conversation.questions if q.message_id == verdict.closest_message_id), None
    )
    if closest:
        yield say["earlier"].format(question=_shortly(closest.text))
    if verdict.evidence:
        yield say["both"].format(evidence="; ".join(verdict.evidence))
    if verdict.veto and "veto" in say:
        yield say["veto"].format(veto=say.get(verdict.veto, verdict.veto))
    if verdict.opinion and "opinion" in say:
        yield say["opinion"].format(opinion=verdict.opinion)


def _what_became(verdict: Verdict, say: Mapping[str, str]) -> Iterator[str]:
    if verdict.said:
        yield say["told"].format(said=verdict.said)
    elif verdict.kept_silent:
        yield say["silent"].format(why=say.get(verdict.kept_silent, verdict.kept_silent))
    elif verdict.proposed:
        yield say["proposed"].format(answer=verdict.proposed)


def _leads_anywhere(verdict: Verdict) -> bool:
    """Whether there is something for agents in it: not where AskOnce only observes."""
    return bool(verdict.said or verdict.kept_silent or verdict.proposed)


def _of_entry(verdict: Verdict, say: Mapping[str, str]) -> str:
    """That an entry of the FAQ answers it, and what became of that."""
    fits = say["entry"].format(entry=verdict.faq_id, score=verdict.faq_score or 0)
    if verdict.proposed:
        return f"{fits} {say['entry_proposed'].format(answer=verdict.proposed)}"
    return " ".join([fits, *_what_became(verdict, say)])


def set_apart(
    message: Message, new: Conversation, new_ticket_id: str, language: Language = "en"
) -> str:
    """On the ticket that a message left: where it is now."""
    say = _WORDS[language]
    left = say["left"].format(
        message=_shortly(message.words), ticket=new_ticket_id, reference=new.reference
    )
    told = message.verdict is not None and message.verdict.said is not None
    return f"{left}\n{say['not_taken_back']}" if told else left


def _shortly(text: str) -> str:
    """Its beginning, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}…"


_SHORT = 120
_EN = {
    "asked_repeat": "Asked again, by {channel}: {reason}.",
    "asked_related": "Asked again, by {channel}: {reason}.",
    "earlier": 'The earlier question: "{question}"',
    "both": "Both say: {evidence}",
    "told": "AskOnce told the customer:\n{said}",
    "silent": "AskOnce said nothing: {why}.",
    "proposed": "The earlier answer, to send again if it fits:\n{answer}",
    "unhelpful": "The customer says that the earlier answer, given again at {at}, did not help. "
    "It is not given again until somebody has answered anew.",
    "undone": "A ticket of its own: {why} (it had joined there with a score of {score:.2f}).",
    "left": "Not the same question: what the customer wrote is on ticket {ticket} ({reference}) "
    'now: "{message}". Nearly the same words do not join this ticket again.',
    "told_before": "The customer was told this before, and it was not taken back:\n{said}",
    "not_taken_back": "What the customer was told is not taken back.",
    "entry": 'The FAQ entry "{entry}" answers this (score {score:.2f}).',
    "entry_proposed": "Its answer, to send if you agree:\n{answer}",
    "opted_out": "The customer opted out: nothing more is sent to this address.",
    "opted_in": "The customer opted in again: messages to this address are sent.",
    "claimed": "The sender is not proven ({source}): this may be {address} or somebody else. "
    "Nothing was disclosed, no history was joined.",
    "continues": "This goes on from ticket {ticket}, which takes nothing any more.",
    "history": "This conversation moved here from {helpdesk}, ticket {ticket}. Said until then:",
    "moved": "This conversation goes on at {helpdesk}, ticket {ticket}.",
    "without_files": "The reply was sent without these files, which could not be fetched: {names}",
    "linked": "{address} is this customer's from now on: what is written there joins their "
    "questions, and their answers may be given there.",
    "unlinked": "{address} is another person from now on: nothing that was said here is told "
    "there any more.",
    "surging": "{customers} customers asked this within an hour: it may be an incident, or a "
    "question that the FAQ lacks.",
    "undelivered": "Not delivered: {why}",
    "held": "Not sent yet: {why}. It goes out by itself as soon as the customer writes again.",
    "sent_elsewhere": "Sent by {channel} to {address}, since {why}.",
    "overdue": "The first reply is late: it was due by {due} UTC.",
    "uncorrected": "AskOnce could not do that: {why}.",
}
_ZH = {
    "asked_repeat": "客户通过 {channel} 再次询问：与之前的问题相同（相似度 {score:.2f}）。",
    "asked_related": "客户通过 {channel} 询问了相关的问题（相似度 {score:.2f}）。",
    "earlier": "之前的问题：“{question}”",
    "both": "共同之处：{evidence}",
    "veto": "没有自动答复，因为：{veto}",
    "opinion": "复核意见：{opinion}",
    "told": "AskOnce 已回复客户：\n{said}",
    "silent": "AskOnce 没有回复客户：{why}。",
    "proposed": "之前的答复，如果合适可以再次发送：\n{answer}",
    "unhelpful": "客户表示 {at} 自动发送的之前的答复没有解决问题。"
    "在客服给出新的答复之前，不会再自动发送。",
    "undone": "已单独建单：{why}（此前以相似度 {score:.2f} 并入）。",
    "left": "并非同一个问题：客户的这条消息已移至工单 {ticket}（{reference}）：“{message}”。"
    "几乎相同的话不会再并入本工单。",
    "told_before": "此前已向客户发送以下内容，并未撤回：\n{said}",
    "not_taken_back": "此前发送给客户的内容并未撤回。",
    "entry": "常见问题“{entry}”可以回答此问题（相似度 {score:.2f}）。",
    "entry_proposed": "其答案如下，如果合适请发送：\n{answer}",
    "opted_out": "客户已退订，不会再向此地址发送消息。",
    "opted_in": "客户已恢复订阅，可以向此地址发送消息。",
    "claimed": "发送者身份未经验证（{source}）：可能是 {address}，也可能是其他人。"
    "没有透露任何信息，也没有关联历史记录。",
    "continues": "本工单接续工单 {ticket}，后者已无法再更新。",
    "history": "此会话由 {helpdesk} 的工单 {ticket} 迁移而来。此前的往来如下：",
    "moved": "此会话已迁移至 {helpdesk}，工单 {ticket}。",
    "without_files": "回复已发送，但以下文件无法取得，未能一并发送：{names}",
    "linked": "{address} 今后属于这位客户：从该地址的来信会并入其问题，答复也可以发往该地址。",
    "unlinked": "{address} 今后视为另一位客户：这里的内容不会再透露给该地址。",
    "surging": "一小时内有 {customers} 位客户提出了这个问题：可能是突发故障，"
    "也可能是常见问题库中缺少的内容。",
    "undelivered": "未送达：{why}",
    "held": "尚未发送：{why}。客户再次来信后将自动发送。",
    "sent_elsewhere": "已改用 {channel} 发送至 {address}，原因：{why}。",
    "overdue": "首次回复已超时：应在 {due}（UTC）之前回复。",
    "uncorrected": "AskOnce 无法执行：{why}。",
    MAY_HAVE_ARRIVED: "发送过程中连接中断，客户可能收到了，也可能没有收到；"
    "如果客户没有反应，请重新发送",
    PARTED: "写下这条回复之后，发现此会话中有提问者其实是另一位客户：请确认要发给谁，再重新发送",
    NO_FILES: "回复没有文字，其文件又都无法从客服系统取得",
    NO_LONGER_PROVEN: "已无法证明最初提问的是同一个人",
    OPTED_OUT: "客户已退订发往此地址的消息；客户在那里发送 START 即可恢复",
    "another number or date": "号码或日期不同",
    "a negation on one side": "其中一方是否定的",
    "another step of the same matter": "同一件事的另一个步骤",
    "the earlier answer did not help when it was given again": "之前的答复再次发送后没有解决问题",
    "the sender is not proven: an answer would reach the address's owner": "发送者身份未经验证，"
    "答复会送到该地址的真正主人",
    "who asked first is not proven to be the same person": "无法证明最初提问的是同一个人",
    "a machine sent it": "这是机器自动发送的",
    "AskOnce spoke in this conversation a moment ago": "AskOnce 刚刚在此会话中回复过",
    "the wording is empty": "没有配置回复用语",
}
_WORDS: Mapping[Language, Mapping[str, str]] = {"en": _EN, "zh": _ZH}


def continues(ticket_id: str, language: Language = "en") -> str:
    """That a ticket goes on with what another one took until now."""
    return _WORDS[language]["continues"].format(ticket=ticket_id)


def history(lines: Iterable[str], old: Ticket, language: Language = "en") -> str:
    """What was said before a conversation moved here from another helpdesk."""
    head = _WORDS[language]["history"].format(helpdesk=old.helpdesk, ticket=old.id)
    return "\n".join([head, *lines])


def moved(ticket: Ticket, language: Language = "en") -> str:
    """Where a conversation goes on."""
    return _WORDS[language]["moved"].format(helpdesk=ticket.helpdesk, ticket=ticket.id)


def without_files(names: Iterable[str], language: Language = "en") -> str:
    """That a reply went out, and some of its files did not."""
    return _WORDS[language]["without_files"].format(names=", ".join(names))


def linked(address: str, language: Language = "en") -> str:
    """That an address is this customer's from now on."""
    return _WORDS[language]["linked"].format(address=address)


def unlinked(address: str, language: Language = "en") -> str:
    """That an address is another person's from now on."""
    return _WORDS[language]["unlinked"].format(address=address)


def surging(customers: int, language: Language = "en") -> str:
    """That many ask the same: how many, never who or in which words."""
    return _WORDS[language]["surging"].format(customers=customers)


def undelivered(why: str, language: Language = "en") -> str:
    """That a reply did not reach the customer."""
    return _said("undelivered", why, language)


def held(why: str, language: Language = "en") -> str:
    """That a reply waits for the customer."""
    return _said("held", why, language)


def sent_elsewhere(why: str, message: Message, language: Language = "en") -> str:
    """That a reply took another channel than the one the customer used last."""
    where = {"channel": message.channel.value, "address": message.address}
    return _said("sent_elsewhere", why, language, **where)


def overdue(due_at: datetime, language: Language = "en") -> str:
    """That the first reply is late."""
    return _WORDS[language]["overdue"].format(due=f"{due_at:%H:%M}")


def uncorrected(why: str, language: Language = "en") -> str:
    """That what an agent wanted of AskOnce cannot be done."""
    return _said("uncorrected", why, language)


def _said(key: str, why: str, language: Language, **where: str) -> str:
    """With a reason, of those that are ours in the agents' language."""
    say = _WORDS[language]
    return say[key].format(why=say.get(why, why), **where)
