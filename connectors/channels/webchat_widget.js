// AskOnce web chat: <script src=".../webchat/<inbox>/widget.js" async></script>, one element, no build.
//
//   <askonce-chat></askonce-chat>
//
// Attributes: `identity` (a JWT of your server for the customer who is logged in), `inline` (fills its
// place instead of floating), `lang` (zh or en; else the page's), `api` and `inbox` (else the script's).
//
// Nothing is lost and nothing doubled: a line waits in the browser's storage under an id of its own
// until the server has it, and the server takes each id once.
(() => {
  "use strict";

  const here = new URL(document.currentScript?.src ?? location.href);
  const [, scriptInbox] = here.pathname.match(/\/webchat\/([^/]+)\/widget\.js$/) ?? [];
  const base = here.href.replace(/\/webchat\/[^/]+\/widget\.js.*$/, "");

  const WORDS = {
    en: {
      title: "Chat with us", open: "Open chat", close: "Close chat", write: "Write a message",
      send: "Send", attach: "Attach a file", you: "You", us: "Support", waiting: "Sending …",
      offline: "No connection. Your message is kept and will be sent.",
      tooLarge: "The file is too large: 500 kB at most.", failed: "This message could not be sent.",
      hello: "Hello! How can we help?", unread: "unread",
    },
    zh: {
      title: "在线客服", open: "打开聊天", close: "关闭聊天", write: "请输入消息",
      send: "发送", attach: "添加文件", you: "我", us: "客服", waiting: "发送中…",
      offline: "网络已断开，消息已保存，恢复后自动发送。",
      tooLarge: "文件过大，最大 500 kB。", failed: "消息未能发送。",
      hello: "您好，请问有什么可以帮您？", unread: "条未读",
    },
  };
  const MAX_FILE_BYTES = 500_000;
  const WAIT_SECONDS = 20;

  const STYLE = `
    :host { all: initial; font: 15px/1.45 system-ui, -apple-system, "PingFang SC", "Noto Sans CJK SC", sans-serif; color: #1c2b2d; }
    :host([inline]) { display: block; height: 100%; }
    * { box-sizing: border-box; font: inherit; }
    .launcher { position: fixed; right: 20px; bottom: 20px; width: 56px; height: 56px; border: 0; border-radius: 28px;
      background: #0b7a75; color: #fff; cursor: pointer; box-shadow: 0 4px 16px #0004; z-index: 2147483000; }
    .launcher svg { width: 26px; height: 26px; vertical-align: middle; }
    .badge { position: absolute; top: -4px; right: -4px; min-width: 20px; padding: 0 5px; border-radius: 10px; background: #d1495b;
      color: #fff; font-size: 12px; line-height: 20px; text-align: center; }
    .panel { display: flex; flex-direction: column; overflow: hidden; background: #fff; height: 100%; }
    :host(:not([inline])) .panel { position: fixed; right: 20px; bottom: 88px; width: 360px; height: min(560px, calc(100vh - 110px));
      border-radius: 14px; box-shadow: 0 8px 40px #0003; z-index: 2147483000; }
    @media (max-width: 480px) { :host(:not([inline])) .panel { inset: 0; width: 100%; height: 100%; border-radius: 0; } }
    [hidden] { display: none !important; }
    header { display: flex; align-items: center; justify-content: space-between; padding: 12px 14px; background: #0b7a75; color: #fff; font-weight: 600; }
    :host([inline]) header { display: none; }
    header button { border: 0; background: none; color: inherit; font-size: 22px; line-height: 1; cursor: pointer; padding: 2px 6px; }
    .log { flex: 1; overflow-y: auto; margin: 0; padding: 12px; list-style: none; background: #f4f7f7; overscroll-behavior: contain; }
    .log li { display: flex; flex-direction: column; max-width: 84%; margin: 0 0 10px; width: fit-content; }
    .log li.you { margin-left: auto; align-items: flex-end; }
    .log p { margin: 0; padding: 8px 12px; border-radius: 14px; background: #fff; white-space: pre-wrap; overflow-wrap: anywhere; box-shadow: 0 1px 2px #0001; }
    .log .you p { background: #0b7a75; color: #fff; }
    .log small { color: #4e6063; font-size: 12px; padding: 2px 4px 0; }
    .log .waiting p { opacity: .6; }
    .notice { margin: 0; padding: 6px 14px; background: #fdf3d7; color: #5c4400; font-size: 13px; }
    form { display: flex; gap: 6px; align-items: flex-end; padding: 10px; border-top: 1px solid #dfe7e7; }
    textarea { flex: 1; resize: none; min-height: 38px; max-height: 110px; padding: 8px 10px; border: 1px solid #b9c9c9; border-radius: 10px; background: #fff; color: inherit; }
    form button { border: 0; border-radius: 10px; height: 38px; padding: 0 12px; background: #0b7a75; color: #fff; cursor: pointer; }
    form button.file { background: #e6eeee; color: #1c2b2d; padding: 0 10px; }
    :focus-visible { outline: 3px solid #f2a541; outline-offset: 2px; }
  `;

  class AskOnceChat extends HTMLElement {
    static observedAttributes = ["identity"];

    connectedCallback() {
      if (this.shadowRoot) return;
      this.api = this.getAttribute("api") ?? base;
      this.inbox = this.getAttribute("inbox") ?? scriptInbox;
      const lang = (this.getAttribute("lang") ?? document.documentElement.lang ?? "en").slice(0, 2);
      this.words = WORDS[lang] ?? WORDS.en;
      this.lines = new Map();
      this.build();
      this.begin();
      this.onOnline = () => this.wake();
      addEventListener("online", this.onOnline);
      document.addEventListener("visibilitychange", this.onOnline);
    }

    disconnectedCallback() {
      this.over = true;
      this.polling?.abort();
      removeEventListener("online", this.onOnline);
      document.removeEventListener("visibilitychange", this.onOnline);
    }

    attributeChangedCallback(_name, before, now) {
      // Another customer: nothing of the one before stays on the screen.
      if (!this.shadowRoot || before === now) return;
      this.polling?.abort();
      this.lines.clear();
      this.begin();
    }

    // What is kept in the browser

    begin() {
      const who = this.getAttribute("identity");
      this.place = `askonce:${this.api}:${this.inbox}:${who ? "known:" + subject(who) : "visitor"}`;
      this.kept = { token: null, outbox: [], read: 0, ...this.load() };
      if (who) this.kept.token = null;
      this.after = 0;
      this.round = (this.round ?? 0) + 1;
      this.greet();
      for (const line of this.kept.outbox) this.show({ ...line, from: "you", waiting: true });
      this.follow(this.round);
      this.flush();
    }

    load() {
      try {
        return JSON.parse(localStorage.getItem(this.place)) ?? {};
      } catch {
        return {};
      }
    }

    keep() {
      try {
        localStorage.setItem(this.place, JSON.stringify(this.kept));
      } catch { /* private mode: kept in memory only */ }
    }

    // Talking to the server

    async call(path, options = {}) {
      for (let tried = 0; ; tried++) {
        const token = await this.session(tried > 0);
        const response = await fetch(`${this.api}/webchat/${this.inbox}/${path}`, {
          ...options,
          headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
        });
        if (response.status !== 401 || tried) return response;
      }
    }

    async session(renew) {
      if (this.kept.token && !renew) return this.kept.token;
      this.opening ??= this.open().finally(() => { this.opening = null; });
      return this.opening;
    }

    async open() {
      const identity = this.getAttribute("identity");
      const ask = (body) => fetch(`${this.api}/webchat/${this.inbox}/session`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
      let response = await ask(identity ? { identity } : this.kept.token ? { token: this.kept.token } : {});
      if (response.status === 401 && !identity) response = await ask({});
      if (!response.ok) throw new Error(`session: HTTP ${response.status}`);
      this.kept.token = (await response.json()).token;
      this.keep();
      return this.kept.token;
    }

    async follow(round) {
      let pause = 500;
      let wait = 0; // the first time what is there already; then until something comes
      while (!this.over && round === this.round) {
        this.polling = new AbortController();
        try {
          const response = await this.call(`messages?after=${this.after}&wait=${wait}`, { signal: this.polling.signal });
          if (!response.ok) throw new Error(`HTTP ${response.status}`);
          const found = await response.json();
          if (round !== this.round) return;
          for (const line of found.messages) this.show(line);
          this.after = Math.max(this.after, found.after);
          wait = WAIT_SECONDS;
          this.online(true);
          pause = 500;
          if (this.kept.outbox.length) this.flush();
        } catch (error) {
          if (error.name !== "AbortError") this.online(false);
          await new Promise((done) => { this.resume = done; setTimeout(done, pause); });
          pause = Math.min(pause * 2, 15000);
        }
      }
    }

    wake() {
      this.resume?.();
      this.flush();
    }

    async flush() {
      if (this.flushing) return;
      this.flushing = true;
      try {
        while (this.kept.outbox.length) {
          const line = this.kept.outbox[0];
          const response = await this.call("messages", {
            method: "POST",
            body: JSON.stringify({ client_id: line.client_id, text: line.text, files: line.files }),
          });
          if (response.status >= 500 || response.status === 429) throw new Error("later");
          const answer = response.status === 200 ? await response.json() : null;
          this.kept.outbox.shift();
          this.keep();
          this.settle(line.client_id, answer ? null : this.words.failed);
          if (answer?.answer) this.show({ ...answer.answer });
        }
        this.online(true);
      } catch {
        this.online(false);
      } finally {
        this.flushing = false;
      }
    }

    // What is on the screen

    build() {
      const root = this.attachShadow({ mode: "open" });
      const w = this.words;
      const sheet = new CSSStyleSheet(); // a page's policy forbids inline styles, not these
      sheet.replaceSync(STYLE);
      root.adoptedStyleSheets = [sheet];
      root.innerHTML = `
        <button class="launcher" type="button"><svg viewBox="0 0 24 24" fill="currentColor" aria-hidden="true"><path d="M4 3h16a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2H9l-5 4V5a2 2 0 0 1 0-2z"/></svg><span class="badge" hidden></span></button>
        <section class="panel" role="region"><header><span></span><button type="button" class="close">×</button></header>
        <ol class="log" role="log" aria-live="polite" tabindex="0"></ol>
        <p class="notice" role="status" hidden></p>
        <form><input type="file" hidden><button type="button" class="file">＋</button><textarea rows="1"></textarea><button type="submit"></button></form></section>`;
      const find = (selector) => root.querySelector(selector);
      [this.panel, this.log, this.notice, this.badge] = [".panel", ".log", ".notice", ".badge"].map(find);
      [this.field, this.picker, this.launcher] = ["textarea", "input", ".launcher"].map(find);
      find("header span").textContent = w.title;
      find("form button[type=submit]").textContent = w.send;
      this.panel.setAttribute("aria-label", w.title);
      this.log.setAttribute("aria-label", w.title);
      this.field.placeholder = w.write;
      for (const [element, label] of [[this.field, w.write], [find(".close"), w.close], [find(".file"), w.attach], [this.launcher, w.open]]) {
        element.setAttribute("aria-label", label);
      }
      this.launcher.hidden = this.hasAttribute("inline");
      this.panel.hidden = !this.launcher.hidden;
      this.launcher.onclick = () => this.toggle(this.panel.hidden);
      find(".close").onclick = () => this.toggle(false);
      this.panel.onkeydown = (event) => { if (event.key === "Escape" && !this.hasAttribute("inline")) this.toggle(false); };
      find("form").onsubmit = (event) => { event.preventDefault(); this.say(this.field.value); };
      this.field.onkeydown = (event) => {
        // Enter chooses a candidate while a Chinese word is being composed.
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.say(this.field.value); }
      };
      find(".file").onclick = () => this.picker.click();
      this.picker.onchange = () => this.attach(this.picker.files[0]);
    }

    toggle(open) {
      this.panel.hidden = !open;
      this.launcher.setAttribute("aria-expanded", String(open));
      if (open) { this.markRead(); this.field.focus(); } else { this.launcher.focus(); }
    }

    say(text, files = []) {
      if (!text.trim() && !files.length) return;
      const line = { client_id: crypto.randomUUID?.() ?? String(Math.random()).slice(2).padEnd(16, "0"), text, files, at: new Date().toISOString() };
      this.kept.outbox.push(line);
      this.keep();
      this.show({ ...line, from: "you", waiting: true });
      this.field.value = "";
      this.flush();
    }

    async attach(file) {
      this.picker.value = "";
      if (!file) return;
      if (file.size > MAX_FILE_BYTES) return this.tell(this.words.tooLarge);
      const bytes = new Uint8Array(await file.arrayBuffer());
      let binary = "";
      for (let at = 0; at < bytes.length; at += 32768) binary += String.fromCharCode(...bytes.subarray(at, at + 32768));
      const media_type = file.type || "application/octet-stream";
      this.say(this.field.value, [{ name: file.name, media_type, content: btoa(binary) }]);
    }

    greet() {
      const item = document.createElement("li");
      item.className = "hello";
      item.append(document.createElement("p"));
      item.firstChild.textContent = this.words.hello;
      this.log.replaceChildren(item);
    }

    show(line) {
      const id = line.client_id ?? line.id;
      let item = this.lines.get(id);
      if (!item) {
        item = document.createElement("li");
        item.className = line.from;
        const text = document.createElement("p");
        const names = (line.files ?? []).map((file) => `📎 ${file.name || file.media_type}`);
        text.textContent = [line.text, ...names].filter(Boolean).join("\n");
        item.append(text, document.createElement("small"));
        this.lines.set(id, item);
        this.log.append(item);
        if (line.from === "us") this.arrived(line);
        this.log.scrollTop = this.log.scrollHeight;
      }
      item.classList.toggle("waiting", Boolean(line.waiting));
      const who = line.from === "you" ? this.words.you : line.author && line.author !== "askonce" ? line.author : this.words.us;
      const time = new Date(line.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      item.lastChild.textContent = line.waiting ? this.words.waiting : `${who} · ${time}`;
    }

    settle(clientId, fault) {
      const item = this.lines.get(clientId);
      if (!item) return;
      item.classList.remove("waiting");
      if (fault) item.lastChild.textContent = fault;
      else item.lastChild.textContent = `${this.words.you} · ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
    }

    arrived(line) {
      if (!this.panel.hidden || (line.seq ?? 0) <= this.kept.read) return this.markRead(line.seq);
      this.unread = (this.unread ?? 0) + 1;
      this.badge.hidden = false;
      this.badge.textContent = this.unread;
      this.launcher.setAttribute("aria-label", `${this.words.open}, ${this.unread} ${this.words.unread}`);
    }

    markRead(seq = this.after) {
      this.kept.read = Math.max(this.kept.read, seq || 0);
      this.keep();
      this.unread = 0;
      this.badge.hidden = true;
      this.launcher.setAttribute("aria-label", this.words.open);
    }

    online(yes) {
      if (yes) { this.notice.hidden = true; return; }
      this.tell(this.words.offline);
    }

    tell(text) {
      this.notice.textContent = text;
      this.notice.hidden = false;
    }
  }

  // The subject of a JWT, to keep one customer's unsent lines apart from another's. Proves nothing.
  function subject(jwt) {
    try {
      return JSON.parse(atob(jwt.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).sub;
    } catch {
      return "unknown";
    }
  }

  if (!customElements.get("askonce-chat")) customElements.define("askonce-chat", AskOnceChat);
})();
