"""Tencent's APIs: one token for all workers, refused ones fetched anew once, codes in plain words.

Tokens: https://developers.weixin.qq.com/doc/offiaccount/Basic_Information/getStableAccessToken.html
        https://developer.work.weixin.qq.com/document/path/91039
Codes:  https://developers.weixin.qq.com/doc/offiaccount/Getting_Started/Global_Return_Code.html
        https://developer.work.weixin.qq.com/document/path/90313

Calls go through wechatpy's clients, fenced in: no redirects, bounded answers, time-outs, and no
retry of their own (theirs recurses without end on a token that stays wrong, wechatpy issue 629).
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

from chalicelib.errors import ClosedError, DeliveryError, RejectedError, RetryableError
from chalicelib.ports import TokenCache
from chalicelib.schema import Attachment, Kind, Message
from connectors import http, wechat_pieces

Json = dict[str, Any]


@dataclass(frozen=True)
class Codes:
    """What a provider's errcodes mean to whoever reads them, and whether they pass."""

    provider: str
    #: Fetch a new token, then try once more.
    stale: frozenset[int]
    #: They pass by themselves, or once somebody has mended what they name: the message waits.
    later: Mapping[int, str]
    never: Mapping[int, str]
    #: The customer must write again first.
    closed: Mapping[int, str]

    def error(self, code: int, message: str = "") -> DeliveryError:
        """The error to raise; `message` is the provider's errmsg."""
        if code in self.later:
            words = self.later[code].format(ip=_ip(message))
            return RetryableError(f"{words} ({code})")
        if code in self.closed:
            return ClosedError(f"{self.closed[code]} ({code})")
        words = self.never.get(code, f"{self.provider} refused the message")
        return RejectedError(f"{words} ({code})")


def _ip(message: str) -> str:
    """The address of ours that an errmsg names, to be copied into the console."""
    found = re.search(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", message)
    return f" {found[0]}" if found else ""


_APP = "WeChat does not accept app_id and app_secret: compare both with its console"
WECHAT = Codes(
    provider="WeChat",
    stale=frozenset({40001, 40014, 42001}),
    later={
        -1: "WeChat is busy",
        40001: _APP,
        40013: _APP,
        40014: _APP,
        40125: _APP,
        40164: "WeChat refuses calls from our address{ip}: add it to the IP allow-list in its"
        " console",
        40243: "WeChat has frozen the app_secret: unfreeze it in its console",
        42001: _APP,
        45009: "WeChat's daily quota of calls is used up: its console can reset it",
        45011: "calls come too fast for WeChat",
    },
    never={
        40003: "WeChat does not know this customer's openid",
        40004: "WeChat does not take files of this type",
        40006: "the file is too large for WeChat",
        40007: "WeChat has no such file any more: it keeps them for three days",
        40008: "WeChat does not take messages of this kind",
        40009: "the picture is too large for WeChat: it takes 10 MB",
        43004: "the customer does not follow the account",
        43019: "the customer is on the account's blacklist",
        44004: "there is no text",
        45001: "the file is too large for WeChat",
        45002: "the text is too long for WeChat: it takes 2048 bytes, some 680 Chinese characters",
        45007: "the voice message is too long for WeChat: it takes 60 seconds",
        48001: "this account has no right to send customer-service messages: its console says"
        " which rights it has",
        48002: "the customer has refused messages from this account",
        48004: "WeChat has blocked this API for the account: its console says why",
        50002: "WeChat has restricted this account: its console says why",
    },
    closed={
        45015: "WeChat's window is closed: the customer has not written within 48 hours",
        45047: "WeChat's count is used up: five messages after each of the customer's",
    },
)

_CORP = "WeCom does not accept corp_id and secret: compare both with its console"
_VISIBLE = (
    "WeCom does not know this person, or the application may not write to them: see its visible"
    " range in the console"
)
WECOM = Codes(
    provider="WeCom",
    stale=frozenset({40014, 42001}),
    later={
        -1: "WeCom is busy",
        40001: _CORP,
        40013: _CORP,
        40014: _CORP,
        42001: _CORP,
        45009: "calls come too fast for WeCom",
        45033: "too many calls at once for WeCom",
        60020: "WeCom refuses calls from our address{ip}: add it to the application's trusted"
        " addresses in its console",
    },
    never={
        40003: _VISIBLE,
        40004: "WeCom does not take files of this type",
        40006: "the file is too large for WeCom",
        40007: "WeCom has no such file any more: it keeps them for three days",
        40008: "WeCom does not take messages of this kind",
        40009: "the picture is too large for WeCom: it takes 10 MB",
        40056: "agent_id is none of this corporation's: compare it with the console",
        44004: "there is no text",
        45001: "the file is too large for WeCom",
        45002: "the text is too long for WeCom: it takes 2048 bytes",
        48002: "this secret has no right to the API: its console says which rights it has",
        60011: _VISIBLE,
        60111: _VISIBLE,
        81013: _VISIBLE,
        95000: "WeCom does not know this customer-service account (open_kfid)",
        301002: "secret and agent_id are not of one application: compare both with the console",
    },
    closed={
        95018: "the session with the customer is in a state that lets us send nothing: a colleague"
        " has it in WeCom, or it has ended",
    },
)


@dataclass(frozen=True)
class Api:
    """One application's calls, with the token that all workers share."""

    codes: Codes
    tokens: TokenCache
    #: The token's name in the cache.
    name: str
    #: Whether the provider is to make a new token -> its answer.
    fetch: Callable[[bool], Json]
    #: A token -> wechatpy's client, which has no address to ask for another.
    client: Callable[[str], Any]

    def call(self, act: Callable[[Any], Any]) -> Any:
        """What `act` gives with a client; once more with a new token if the first is refused."""
        from wechatpy.exceptions import WeChatClientException

        token = self._token()
        try:
            return self._try(act, token)
        except WeChatClientException as error:
            if error.errcode not in self.codes.stale:
                raise self._error(error) from None
        try:
            return self._try(act, self._token(stale=token))
        except WeChatClientException as error:
            raise self._error(error) from None

    def post(self, path: str, told: Json, *, answers: Collection[int] = ()) -> Json:
        """A call that sends JSON, and its answer; errcodes in `answers` are answers too."""
        from wechatpy.exceptions import WeChatClientException

        def act(client: Any) -> Any:
            try:
                return client.post(path, data=told)
            except WeChatClientException as error:
                if error.errcode in answers:
                    return {"errcode": error.errcode}
                raise

        return self.demand_json(self.call(act))

    def demand_json(self, answer: Any) -> Json:
        """RetryableError for what is no JSON object: wechatpy takes anything else for success."""
        if not isinstance(answer, dict):
            raise RetryableError(f"{self.codes.provider}'s answer cannot be read", uncertain=True)
        return answer

    def download(self, media_id: str) -> bytes:
        """A temporary file; the provider keeps it for three days."""
        import requests

        where = {"media_id": media_id}
        answer = self.call(lambda client: client.get("media/get", params=dict(where)))
        if isinstance(answer, dict) and "video_url" in answer:
            raise RejectedError(f"{self.codes.provider} shows this video in its own client only")
        if not isinstance(answer, requests.Response):
            raise RejectedError(f"{self.codes.provider} has no such file any more")
        return cast(bytes, answer.content)

    def content(self, message: Message, takes: Mapping[Kind, wechat_pieces.Takes]) -> Json:
        """`msgtype` and its part of a message to send; its file is uploaded first."""
        if not message.attachments:
            return {"msgtype": "text", "text": {"content": message.text}}
        (attachment,) = message.attachments
        found = wechat_pieces.taken(attachment, takes)
        if found is None or attachment.content is None:
            raise RejectedError(f"{self.codes.provider} does not take this file")
        _, rule = found
        media_id = self._upload(attachment, attachment.content, rule)
        return {"msgtype": rule.type, rule.type: {"media_id": media_id}}

    def _upload(self, attachment: Attachment, content: bytes, rule: wechat_pieces.Takes) -> str:
        name = wechat_pieces.upload_name(attachment, rule)
        file = (name, content, attachment.media_type)
        answer = self.demand_json(self.call(lambda client: client.media.upload(rule.type, file)))
        media_id = answer.get("media_id")
        if not isinstance(media_id, str):
            raise RetryableError(f"{self.codes.provider} gave no id for the file")
        return media_id

    def _try(self, act: Callable[[Any], Any], token: str) -> Any:
        import requests

        client = self.client(token)
        client.timeout, client.auto_retry = (http.CONNECT_SECONDS, http.READ_SECONDS), False
        client._http = _fenced(self.codes.provider)
        try:
            return act(client)
        except requests.exceptions.ConnectTimeout:
            raise RetryableError(f"{self.codes.provider} does not answer") from None
        except requests.exceptions.RequestException as error:
            sent = "NewConnectionError" not in repr(error)
            words = f"the line to {self.codes.provider} broke"
            raise RetryableError(words, uncertain=sent) from None
        except (ValueError, TypeError, RecursionError):  # an errcode that is no number, and such
            words = f"{self.codes.provider}'s answer cannot be read"
            raise RetryableError(words, uncertain=True) from None

    def _token(self, stale: str = "") -> str:
        def fetch() -> tuple[str, float]:
            answer = self.fetch(bool(stale))
            token, seconds = answer.get("access_token"), answer.get("expires_in")
            if not isinstance(token, str) or not token:
                raise self._error_of(answer)
            return token, float(seconds if isinstance(seconds, int) else 7200)

        return self.tokens.get(self.name, fetch, stale=stale)

    def _error_of(self, answer: Json) -> DeliveryError:
        code = answer.get("errcode")
        error = self.codes.error(code if isinstance(code, int) else -1, str(answer.get("errmsg")))
        # Without a token no message is at fault: it waits until somebody has mended the inbox.
        return error if isinstance(error, RetryableError) else RetryableError(str(error))

    def _error(self, error: Any) -> DeliveryError:
        return self.codes.error(int(error.errcode), str(error.errmsg))


def _fenced(provider: str) -> Any:
    """A session that follows nobody, and reads no more than a file's worth."""
    import requests

    class Fenced(requests.Session):
        def request(self, *arguments: Any, **more: Any) -> requests.Response:
            more |= {"allow_redirects": False, "stream": True}
            with super().request(*arguments, **more) as response:
                content = http.bounded(response.iter_content(65536), http.MAX_DOWNLOAD_BYTES)
            if error := http.status_error(response.status_code, response.headers, provider):
                raise error
            response._content = content
            return response

    return Fenced()


def stable_token(api_url: str, app_id: str, app_secret: str) -> Callable[[bool], Json]:
    """How WeChat gives out tokens: the same one to all who ask, until one wants another."""

    def fetch(renew: bool) -> Json:
        asked = {
            "grant_type": "client_credential",
            "appid": app_id,
            "secret": app_secret,
            "force_refresh": renew,
        }
        url = f"{api_url}/cgi-bin/stable_token"
        return http.call("POST", url, json=asked, repeatable=True).json()

    return fetch


def corporation_token(api_url: str, corp_id: str, secret: str) -> Callable[[bool], Json]:
    """How WeCom does: one token for each secret, the same one until it ends."""
    from urllib.parse import urlencode

    def fetch(_renew: bool) -> Json:
        query = urlencode({"corpid": corp_id, "corpsecret": secret})
        url = f"{api_url}/cgi-bin/gettoken?{query}"
        return http.call("GET", url, repeatable=True).json()

    return fetch


def official_client(api_url: str, app_id: str) -> Callable[[str], Any]:
    """wechatpy's client of Official Accounts and Mini Programs."""

    def make(token: str) -> Any:
        from wechatpy import WeChatClient

        client = WeChatClient(app_id, "", access_token=token)
        client.API_BASE_URL = f"{api_url}/cgi-bin/"
        return client

    return make


def corporation_client(api_url: str, corp_id: str) -> Callable[[str], Any]:
    """wechatpy's client of WeCom; it knows no customer service, whose calls are plain posts."""

    def make(token: str) -> Any:
        from wechatpy.enterprise import WeChatClient

        client = WeChatClient(corp_id, "", access_token=token)
        client.API_BASE_URL = f"{api_url}/cgi-bin/"
        return client

    return make
