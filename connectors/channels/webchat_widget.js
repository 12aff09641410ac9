// <script src=".../webchat/<inbox>/widget.js" async></script><askonce-chat></askonce-chat>: docs/webchat.md
//
// Nothing is lost or doubled: a line waits here until the server has it, which takes each id once.
{
const here = new URL(document.currentScript?.src ?? location.href);
const [, base, scriptInbox] = here.href.match(/^(.*)\/webchat\/([^/]+)\/widget\.js/) ?? [];
const WORDS = {
	en: {
		title: "Chat with us", open: "Open chat", close: "Close chat", write: "Write a message", send: "Send",
		attach: "Attach files", remove: "Remove", us: "Support", sending: "Sending …", sent: "Sent", read: "Read",
		typing: "Support is typing …", hello: "Hello! How can we help?", unread: "unread", failed: "Not sent.",
		again: "Edit", offline: "No connection. Your messages are kept and will be sent.",
		refused: "The chat is not available. Please reload the page.",
		tooLarge: "This file is too large.", badType: "Files of this type cannot be sent.",
	},
	zh: {
		title: "在线客服", open: "打开聊天", close: "关闭聊天", write: "请输入消息", send: "发送",
		attach: "添加文件", remove: "移除", us: "客服", sending: "发送中…", sent: "已发送", read: "已读",
		typing: "客服正在输入…", hello: "您好，请问有什么可以帮您？", unread: "条未读", failed: "未能发送。",
		again: "修改", offline: "网络已断开，消息已保存，恢复后自动发送。",
		refused: "在线客服暂时不可用，请刷新页面。", tooLarge: "文件过大。", badType: "不支持此类型的文件。",
	},
};
const WAIT_SECONDS = 20, IDLE_SECONDS = 30, SIGNAL_MS = 3000, MAX_FILES = 5;

const STYLE = `
:host{all:initial;--brand:var(--askonce-color,#0b7a75);font:15px/1.45 system-ui,"PingFang SC","Noto Sans CJK SC",sans-serif;color:#1c2b2d}
:host([inline]){display:block;height:100%}
*{box-sizing:border-box;font:inherit}
[hidden],dialog:not([open]),:host([inline]) header{display:none!important}
button{min-width:44px;min-height:44px;border:0;border-radius:12px;background:none;color:inherit;cursor:pointer}
svg{width:24px;height:24px;vertical-align:middle;fill:currentColor}
:focus-visible{outline:3px solid #f2a541;outline-offset:2px}
textarea:focus-visible{outline:2px solid var(--brand);outline-offset:-2px}
.launcher{right:20px;bottom:max(20px,env(safe-area-inset-bottom));width:60px;height:60px;border-radius:50%;background:var(--brand);color:#fff;box-shadow:0 6px 20px #0004}
.launcher,.float{position:fixed;z-index:2147483000}
.badge{position:absolute;top:-4px;right:-4px;min-width:22px;padding:0 6px;border-radius:11px;background:#c8324a;font-size:13px;font-weight:600;line-height:22px}
dialog{display:flex;flex-direction:column;position:static;overflow:hidden;width:100%;max-width:none;height:100%;max-height:none;margin:0;padding:0;border:0;background:#fff;color:inherit}
.float{inset:auto 20px 92px auto;width:380px;height:min(620px,100dvh - 112px);border-radius:18px;box-shadow:0 12px 48px #0003,0 0 0 1px #0001}
header{display:flex;align-items:center;justify-content:space-between;padding:8px 8px 8px 18px;background:var(--brand);color:#fff;font-weight:600}
ol{flex:1;overflow-y:auto;margin:0;padding:16px 14px 8px;list-style:none;background:#f4f7f7;overscroll-behavior:contain}
li{display:flex;flex-direction:column;align-items:start;max-width:86%;margin:0 0 10px;width:fit-content}
.you{margin-left:auto;align-items:end}
.bubble{padding:9px 13px;border-radius:16px 16px 16px 4px;background:#fff;white-space:pre-wrap;overflow-wrap:anywhere;box-shadow:0 1px 2px #0001}
.you .bubble{border-radius:16px 16px 4px 16px;background:var(--brand);color:#fff}
.bubble button{display:block;margin-top:8px;padding:0 14px;background:#e6eeee}
.waiting .bubble{filter:saturate(.4)}
a{color:inherit}
.file{display:block;font-weight:600}
img{display:block;width:200px;height:150px;object-fit:cover;border-radius:10px}
small{color:#4e6063;font-size:12px;padding:2px 4px 0}
small button{color:#0b5f5b;text-decoration:underline}
.failed small{color:#a3321f}
.dots{display:flex;gap:5px;padding:14px}
i{width:7px;height:7px;border-radius:50%;background:#6a7c7f}
.sr{position:absolute;clip-path:inset(50%)}
p{margin:0;padding:8px 16px;background:#fdf3d7;color:#5c4400;font-size:13px}
.chips{display:flex;flex-wrap:wrap;gap:6px;padding:8px 12px 0;font-size:13px}
.chips span{display:flex;align-items:center;padding-left:10px;border-radius:12px;background:#e6eeee}
form{display:flex;gap:4px;align-items:end;padding:8px 8px max(8px,env(safe-area-inset-bottom));border-top:1px solid #dfe7e7}
textarea{flex:1;min-width:0;resize:none;height:44px;max-height:132px;padding:10px 12px;border:1px solid #8fa3a3;border-radius:14px;font-size:16px;line-height:22px}
form button{color:var(--brand)}
@media (max-width:480px){.float{inset:0 0 auto;width:100%;height:100dvh;border-radius:0}}
@media (prefers-reduced-motion:no-preference){i{animation:blink 1.2s infinite} i+i{animation-delay:.2s} i+i+i{animation-delay:.4s} @keyframes blink{50%{opacity:.25}}}`
const icon = (path) => `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;
const page = (w, lang) => `
<button class="launcher" type="button" lang="${lang}" aria-expanded="false">${icon("M4 3h16a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2H9l-5 4z")}<span class="badge" hidden></span></button>
<dialog lang="${lang}" aria-label="${w.title}"><header>${w.title}<button type="button" class="close" aria-label="${w.close}">${icon("m6 5 6 6 6-6 1 1-6 6 6 6-1 1-6-6-6 6-1-1 6-6-6-6z")}</button></header>
<ol role="log" aria-live="polite" tabindex="0" aria-label="${w.title}"></ol><p role="status" hidden></p><div class="chips" hidden></div>
<form><input type="file" multiple hidden><button type="button" class="attach" aria-label="${w.attach}">${icon("M17 6v12a4 4 0 0 1-9 0V5a3 3 0 0 1 6 0v11a1 1 0 0 1-3 0V6H9v10a3 3 0 0 0 6 0V5a4 4 0 0 0-9 0v13a6 6 0 0 0 12 0V6z")}</button><textarea rows="1" placeholder="${w.write}" aria-label="${w.write}"></textarea><button aria-label="${w.send}">${icon("M3 20V14l9-2-9-2V3L22 12z")}</button></form></dialog>`;

// A key each, since tabs share them; in memory where nothing is kept.
const memory = new Map();
const attempt = (act, otherwise = null) => { try { return act(); } catch { return otherwise; } };
const kept = {
	get: (key) => attempt(() => localStorage.getItem(key)) ?? memory.get(key) ?? null,
	set: (key, value) => attempt(() => (localStorage.setItem(key, value), true)) || memory.set(key, String(value)),
	drop: (key) => { memory.delete(key); attempt(() => localStorage.removeItem(key)); },
	keys: (start) => [...new Set([...attempt(() => Object.keys(localStorage), []), ...memory.keys()])].filter((key) => key.startsWith(start)).sort(),
};

// Files that wait; without https there is no cache, and a reload loses them.
const cache = (act) => attempt(() => caches.open("askonce").then(act).catch(() => {}));
const blobs = {
	put(id, blob) { memory.set(id, blob); cache((c) => c.put(`/${id}`, new Response(blob))); },
	get: async (id) => memory.get(id) ?? cache(async (c) => (await c.match(`/${id}`)).blob()),
	drop(id) { memory.delete(id); cache((c) => c.delete(`/${id}`)); },
};

// One tab at a time, where the browser has locks.
const alone = async (name, act) => (navigator.locks ? navigator.locks.request(name, act) : act());
const newId = () => [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(36).padStart(7, "0")).join("");

/** Not now: `seconds` says when to come back, `words` what to tell. */
const later = (response, words = "offline") => Object.assign(new Error(`HTTP ${response.status}`), {
	seconds: Number(response.headers.get("Retry-After")), words: response.status === 429 ? null : words,
});

const gone = () => new DOMException("somebody else by now", "AbortError");

function chat(host) {
	const api = host.getAttribute("api") ?? base, inbox = host.getAttribute("inbox") ?? scriptInbox, inline = host.hasAttribute("inline");
	const language = /^zh/i.test(host.getAttribute("lang") ?? (document.documentElement.lang || navigator.language)) ? "zh" : "en";
	const w = WORDS[language], anonymous = `askonce:${api}:${inbox}:visitor`;
	const root = host.attachShadow({ mode: "open" });
	const sheet = new CSSStyleSheet(); // a page's policy forbids inline styles, not these
	sheet.replaceSync(STYLE);
	root.adoptedStyleSheets = [sheet];
	root.innerHTML = page(w, language);
	const [launcher, badge, panel, log, notice, chips, picker, field] = [".launcher", ".badge", "dialog", "ol", "p", ".chips", "input", "textarea"].map((each) => root.querySelector(each));
	const dots = make("li", "", make("span", "sr", w.typing), make("span", "bubble dots", make("i"), make("i"), make("i")));
	const calls = new Set(), signals = {}, chosen = [];
	let over, identity, place, token, after, mark, visitor, readAt, lines, opening, resume, since, cut, sending, toTell, dotsEnd;
	let round = 0, unsent = 0, stamp = 0;

	/** As whoever the page says it is. */
	function begin() {
		identity = host.getAttribute("identity");
		place = identity ? `askonce:${api}:${inbox}:known:${subject(identity)}` : anonymous;
		token = null; // a customer's is not kept: it would outlive the log-out
		field.value = kept.get(`${place}:draft`) ?? "";
		restart();
	}

	/** Read everything anew: nothing of anybody before stays on the screen. */
	function restart() {
		[after, mark, visitor, readAt, lines] = [0, null, null, 0, new Map()];
		log.replaceChildren(bubble({ text: w.hello }), dots);
		log.ariaBusy = "true";
		dots.hidden = true;
		showWaiting();
		count();
		wake(true);
		follow(++round);
	}

	function ask(path, body, bearer, seconds = 20) {
		const stop = new AbortController(), timer = setTimeout(() => stop.abort(), seconds * 1000);
		calls.add(stop);
		return fetch(`${api}/webchat/${inbox}/${path}`, {
			method: body ? "POST" : "GET",
			headers: { ...(body && { "Content-Type": "application/json" }), ...(bearer && { Authorization: `Bearer ${bearer}` }) },
			body: body && JSON.stringify(body),
			signal: stop.signal,
		}).finally(() => { clearTimeout(timer); calls.delete(stop); });
	}

	async function call(path, body, seconds) {
		const own = place;
		let bearer = null, response = null;
		for (let tries = 0; tries < 2 && (!response || response.status === 401); tries++) {
			bearer = await session(bearer);
			if (own !== place) throw gone(); // never in another one's name
			response = await ask(path, body, bearer, seconds);
		}
		if (response.status === 401) throw later(response, "refused");
		if ([408, 429].includes(response.status) || response.status >= 500) throw later(response);
		return response;
	}

	const held = () => (identity ? token : kept.get(`${place}:token`));

	async function session(stale) {
		if (held() && held() !== stale) return held();
		opening ??= alone(`${place}:session`, () => open(stale)).finally(() => { opening = null; });
		return opening;
	}

	async function open(stale) {
		const who = identity;
		const other = () => (held() !== stale ? held() : null);
		if (other()) return other(); // another tab was first
		let before = kept.get(`${anonymous}:token`);
		let response = await ask("session", { ...(who && { identity: who }), ...(before && { token: before }) });
		if (response.status === 401 && before && !who) {
			before = null;
			response = await ask("session", {});
		}
		if (response.status === 401 && who) host.dispatchEvent(new Event("askonce-identity"));
		if (!response.ok) throw later(response, response.status === 401 ? "refused" : "offline");
		const told = await response.json();
		if (who !== identity) throw gone();
		if (other()) return other();
		if (who) token = told.token;
		else kept.set(`${place}:token`, told.token);
		if (stale && !before) forgetUploads();
		resume?.();
		return told.token;
	}

	/** Uploads belong to the visitor who made them. */
	function forgetUploads() {
		for (const [key, line] of waiting()) keep(key, { ...line, files: line.files.map(({ upload, ...file }) => file) });
	}

	const waiting = () => kept.keys(`${place}:line:`).map((key) => [key, attempt(() => JSON.parse(kept.get(key)))]).filter(([, line]) => line);
	const next = () => waiting().find(([, line]) => !line.failed);
	const watched = () => panel.open && !document.hidden;

	async function follow(own) {
		let failures = 0;
		const rest = (seconds) => new Promise((done) => { resume = done; setTimeout(done, seconds * 1000); });
		while (!over && own === round) {
			// Whoever never wrote costs the server nothing.
			if (!identity && !held() && !next()) {
				log.ariaBusy = "false";
				await rest(3600);
				continue;
			}
			const live = watched(), seconds = live && mark !== null ? WAIT_SECONDS : 0;
			const began = since = Date.now();
			try {
				const response = await call(`messages?after=${after}&wait=${seconds}${mark === null ? "" : `&mark=${mark}`}`, null, seconds + 10);
				if (!response.ok) throw later(response);
				const found = await response.json();
				if (own !== round) return;
				failures = 0;
				take(found);
				tell(null);
				flush();
				if (!live && !found.messages.length) await rest(IDLE_SECONDS);
			} catch (error) {
				if (own !== round) return;
				if (!(cut > began)) await rest(pause(error, failures++));
			}
		}
	}

	/** How long to wait now; tells the visitor why. */
	function pause(error, failures) {
		if (error.words !== null) tell(error.words ?? "offline");
		return error.seconds || Math.min(2 ** failures, IDLE_SECONDS) * (0.5 + Math.random() / 2);
	}

	/** Look at once; with `dead`, also let go of connections that may be. */
	function wake(dead = Date.now() - since > (WAIT_SECONDS + 5) * 1000) {
		if (dead) {
			cut = Date.now();
			for (const stop of calls) stop.abort();
		}
		resume?.();
		if (!over) flush();
	}

	function otherTab(key) {
		if (!key?.startsWith(place)) return;
		if (key.endsWith(":token") && visitor && subject(held()) !== visitor) return restart();
		showWaiting();
		count();
		resume?.();
	}

	async function flush() {
		if (sending || !next()) return;
		sending = true;
		try {
			await alone(`${place}:send`, async () => {
				for (let line; (line = next());) await post(...line);
			});
			unsent = 0;
		} catch (error) {
			if (error.name === "AbortError") error.words = null; // let go of, by us
			setTimeout(flush, 1000 * pause(error, unsent++));
		}
		sending = false;
	}

	async function post(key, line) {
		let failed = await upload(key, line), answer = null;
		if (!key.startsWith(`${place}:`)) throw gone();
		if (!failed) {
			const files = line.files.map(({ id, ...file }) => file);
			const response = await call("messages", { client_id: line.client_id, text: line.text, files });
			if (response.ok) ({ answer } = await response.json());
			else failed = "failed";
		}
		if (!kept.get(key)) return; // another tab was faster
		if (failed) keep(key, { ...line, failed });
		else {
			kept.drop(key);
			line.files.forEach((file) => blobs.drop(file.id));
		}
		show({ ...line, from: "you", key, failed });
		if (answer) show(answer);
		tell(null);
		resume?.();
	}

	/** Bring a line's files to the server; what is wrong with one, or null. */
	async function upload(key, line) {
		for (const file of line.files.filter((each) => !each.upload)) {
			const { id, ...about } = file, blob = await blobs.get(id);
			if (!blob) return "failed";
			const offer = await call("uploads", { ...about, size_bytes: blob.size });
			if (!offer.ok) return offer.status === 413 ? "tooLarge" : "badType";
			const { url, fields, ...told } = await offer.json(), form = new FormData();
			for (const part of Object.entries(fields)) form.append(...part);
			form.append("file", blob, file.name);
			const stored = await fetch(url, { method: "POST", body: form, signal: AbortSignal.timeout(120_000) });
			if (stored.status >= 500) throw later(stored);
			if (!stored.ok) return "failed";
			file.upload = told.upload;
			keep(key, line);
		}
		return null;
	}

	/** A sign of life, one of a kind in three seconds; not worth a second try. */
	function signal(kind, more) {
		if (Date.now() - (signals[kind] ?? 0) < SIGNAL_MS || !held()) return false;
		signals[kind] = Date.now();
		ask("signals", { kind, ...more }, held()).catch(() => {});
		return true;
	}

	// What is written

	function toggle(shown) {
		launcher.ariaExpanded = String(shown);
		if (!shown) {
			panel.close();
			return launcher.focus();
		}
		// Modal where it covers the page.
		if (!panel.open) matchMedia("(max-width: 480px)").matches ? panel.showModal() : panel.show();
		field.focus();
		down();
		markRead();
		wake();
	}

	function typed() {
		field.style.height = "auto";
		field.style.height = `${Math.max(44, field.scrollHeight + 2)}px`;
		kept.set(`${place}:draft`, field.value);
		if (field.value.trim()) signal("typing");
	}

	function choose(files) {
		chosen.push(...files);
		chosen.splice(MAX_FILES);
		chips.hidden = !chosen.length;
		chips.replaceChildren(...chosen.map((file, n) => make("span", "", file.name, button("×", `${w.remove} ${file.name}`, () => {
			chosen.splice(n, 1);
			choose([]);
		}))));
	}

	function say(word) {
		const text = word ?? field.value, client_id = newId();
		if (!text.trim() && !chosen.length) return;
		const files = chosen.splice(0).map((file) => {
			const id = newId();
			blobs.put(id, file);
			return { id, name: file.name, media_type: file.type || "application/octet-stream" };
		});
		stamp = Math.max(stamp + 1, Date.now());
		keep(`${place}:line:${stamp}:${client_id}`, { client_id, text, files, at: new Date().toISOString() });
		if (!word) field.value = "";
		typed();
		choose([]);
		showWaiting();
		down();
		wake();
	}

	/** A line that the server will not have goes back to where it was written. */
	async function edit({ key, client_id, text, files }) {
		kept.drop(key);
		lines.get(client_id).item.remove();
		lines.delete(client_id);
		field.value = text;
		for (const { id, name, media_type: type } of files) {
			const blob = await blobs.get(id);
			if (blob) choose([new File([blob], name, { type })]);
			blobs.drop(id);
		}
	}

	// What is on the screen

	function showWaiting() {
		for (const [key, line] of waiting()) show({ ...line, from: "you", key, waiting: !line.failed });
	}

	function take(found) {
		visitor ??= subject(held());
		found.messages.forEach(show);
		[after, mark] = [Math.max(after, found.after), found.mark];
		log.ariaBusy = "false";
		const { typing_seconds, read_at } = found.agent, atEnd = low();
		dots.hidden = !typing_seconds || found.messages.some((line) => line.from === "us");
		clearTimeout(dotsEnd);
		dotsEnd = setTimeout(() => { dots.hidden = true; }, typing_seconds * 1000);
		if (atEnd) down();
		readAt = Date.parse(read_at) || readAt;
		label();
		markRead();
		count();
	}

	const low = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;
	const down = () => { log.scrollTop = log.scrollHeight; };

	function show(line) {
		const id = line.client_id ?? line.id, atEnd = low(), before = lines.get(id);
		const item = before?.item ?? bubble(line);
		line = { ...before?.line, waiting: false, failed: null, ...line };
		lines.set(id, { line, item });
		item.className = `${line.from} ${line.waiting ? "waiting" : line.failed ? "failed" : ""}`;
		if (!before || before.line.seq !== line.seq) {
			// In the server's order; what has no number yet comes last.
			item.seq = line.seq ?? Infinity;
			log.insertBefore(item, [...log.children].find((other) => other.seq > item.seq) ?? dots);
		}
		if (atEnd) down();
		label();
	}

	function bubble(line) {
		const said = make("div", "bubble");
		for (const part of line.text.split(/(https?:\/\/[^\s<>"'，。）】]+)/)) said.append(/^https?:/.test(part) ? link(part, part) : part);
		for (const file of line.files ?? []) {
			const name = file.name || file.media_type, shown = file.url ? link(file.url, name) : make("span", "", name);
			said.append(make("span", "file", shown));
			if (/^image\/(png|jpeg|gif|webp)$/.test(file.media_type)) preview(shown, file);
		}
		for (const { label, value } of line.choices ?? []) said.append(button(label, label, () => say(value)));
		return Object.assign(make("li", line.from, said, make("small")), { seq: 0 });
	}

	async function preview(shown, file) {
		const blob = file.url ? null : await blobs.get(file.id);
		if (!file.url && !blob) return;
		// The page's policy may forbid it.
		shown.replaceChildren(Object.assign(make("img"), { alt: file.name, src: file.url ?? URL.createObjectURL(blob) }));
	}

	/** Under each line: who and when, and how far one's own has come. */
	function label() {
		const all = [...lines.values()], last = Math.max(...all.map(({ line }) => (line.from === "you" && line.seq) || 0));
		for (const { line, item } of all) {
			const small = item.lastChild, parts = [when(line.at, language)];
			if (line.from === "us") parts.unshift(!line.author || line.author === "askonce" ? w.us : line.author);
			else if (!(line.seq < last)) parts.push(line.seq && readAt >= Date.parse(line.at) ? w.read : w.sent);
			const text = line.failed ? w[line.failed] : line.waiting ? w.sending : parts.join(" · ");
			if (small.said === text) continue;
			small.said = text;
			small.replaceChildren(text);
			if (line.failed) small.append(button(w.again, w.again, () => edit(line)));
		}
	}

	function button(words, name, act) {
		const made = Object.assign(make("button", "", words), { type: "button", ariaLabel: name });
		made.onclick = () => { act(); field.focus(); };
		return made;
	}

	const heard = () => [...lines.values()].map(({ line }) => (line.from === "us" && line.seq) || 0).filter((seq) => seq > Number(kept.get(`${place}:read`)));

	function count() {
		const unread = heard().length;
		badge.hidden = !unread;
		badge.textContent = unread;
		launcher.ariaLabel = unread ? `${w.open}, ${unread} ${w.unread}` : w.open;
	}

	function markRead() {
		if (heard().length && watched()) {
			toTell = Math.max(...heard());
			kept.set(`${place}:read`, toTell);
			count();
		}
		if (toTell && signal("read", { seq: toTell })) toTell = 0;
	}

	function tell(words) {
		notice.hidden = !words;
		if (words && notice.textContent !== w[words]) notice.textContent = w[words];
	}

	launcher.hidden = panel.open = inline;
	if (inline) panel.role = "region";
	else panel.className = "float";
	launcher.onclick = () => toggle(!panel.open);
	root.querySelector(".close").onclick = () => toggle(false);
	panel.oncancel = (event) => { event.preventDefault(); toggle(false); };
	panel.onkeydown = (event) => {
		if (event.key === "Escape" && !inline) toggle(false);
		// Enter chooses a candidate while a Chinese word is being composed.
		if (event.key !== "Enter" || event.target !== field || event.shiftKey || event.isComposing || event.keyCode === 229) return;
		event.preventDefault();
		say();
	};
	root.querySelector("form").onsubmit = (event) => { event.preventDefault(); say(); };
	field.oninput = typed;
	field.onpaste = (event) => choose(event.clipboardData.files);
	root.querySelector(".attach").onclick = () => picker.click();
	picker.onchange = () => { choose(picker.files); picker.value = ""; };

	return {
		begin,
		start() {
			over = false;
			const listening = new AbortController();
			const on = (target, name, act) => target.addEventListener(name, act, listening);
			on(window, "online", () => wake(true));
			on(window, "pageshow", () => wake());
			on(window, "storage", (event) => otherTab(event.key));
			on(document, "visibilitychange", () => { if (!document.hidden) { markRead(); wake(); } });
			// A gap means that the computer slept: connections are dead.
			let ticked = Date.now();
			const ticker = setInterval(() => {
				if (Date.now() - ticked > 20_000 && !document.hidden) wake(true);
				ticked = Date.now();
			}, 5000);
			begin();
			return () => { over = true; listening.abort(); clearInterval(ticker); wake(true); };
		},
	};
}

class AskOnceChat extends HTMLElement {
	static observedAttributes = ["identity"];

	connectedCallback() {
		this.chat ??= chat(this);
		this.stop = this.chat.start();
	}

	disconnectedCallback() {
		this.stop();
	}

	attributeChangedCallback(_name, before, now) {
		if (this.chat && before !== now) this.chat.begin();
	}
}

const keep = (key, line) => kept.set(key, JSON.stringify(line));

function make(tag, classes = "", ...children) {
	const made = document.createElement(tag);
	made.className = classes;
	made.append(...children);
	return made;
}

const link = (href, text) => Object.assign(make("a", "", text), { href, target: "_blank", rel: "noopener" });

function when(at, language) {
	const time = { hour: "2-digit", minute: "2-digit" }, date = new Date(at);
	return date.toLocaleString(language, Date.now() - date < 72e6 ? time : { month: "short", day: "numeric", ...time });
}

// Whose JWT it is, to keep one customer's lines apart from another's. Proves nothing.
const subject = (jwt) => attempt(() => String(JSON.parse(atob(jwt.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).sub));

if (!customElements.get("askonce-chat")) customElements.define("askonce-chat", AskOnceChat);
}
