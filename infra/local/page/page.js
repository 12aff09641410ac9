// The local world's page. It shows what /local/state says, and never builds HTML from anybody's words.

const api = document.body.dataset.api;
const CHANNELS = [
  { key: "wechat", name: "WeChat", address: (p) => p.openid },
  { key: "email", name: "Email", address: (p) => p.email },
  { key: "sms", name: "SMS", address: (p) => p.phone },
  { key: "webchat", name: "Web chat", address: (p) => (p.known ? "logged in to the shop" : "anonymous") },
];
const at = (selector) => document.querySelector(selector);
let state = { people: [], tickets: [], lines: [], inboxes: [], visitors: {} };
let person = "li";
let chosen = null;
let shownFor = null;

function make(tag, classes = "", text = null, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) toast(answer.error ?? `HTTP ${response.status}`);
  else if (answer.status >= 400) toast(`The webhook was refused: HTTP ${answer.status}`);
  refresh();
  return answer;
}

function toast(text) {
  const element = make("p", "toast", text);
  element.setAttribute("role", "alert");
  document.body.append(element);
  setTimeout(() => element.remove(), 5000);
}

const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

// Customers

function showPeople() {
  const tabs = at(".people");
  tabs.replaceChildren(...state.people.map((p) => {
    const tab = make("button", "", p.name);
    tab.type = "button";
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-selected", String(p.key === person));
    tab.onclick = () => { person = p.key; show(); };
    return tab;
  }));
  const p = state.people.find((each) => each.key === person);
  const who = at(".who");
  who.replaceChildren();
  if (!p) return;
  if (p.known) who.textContent = "The shop's customer list says that these addresses are one person: verified evidence, so answers may cross channels.";
  else who.append(make("b", "", "Not proven. "), "Writes email in Li's name; the mail server's DMARC check fails, so nothing of Li's is disclosed.");
}

function buildPhones() {
  const p = state.people.find((each) => each.key === person);
  if (!p || shownFor === person) return;
  shownFor = person;
  at(".phones").replaceChildren(...[...CHANNELS, ...otherChannels()].map((channel) => phone(channel, p)));
}

/** Channels that an inbox has and that stand nowhere above: a chat, where the customer has an id. */
function otherChannels() {
  const others = new Set(state.inboxes.map((inbox) => inbox.channel));
  for (const known of CHANNELS) others.delete(known.key);
  return [...others].map((key) => ({ key, name: key, address: (p) => p.openid }));
}

function phone(channel, p) {
  const title = make("h3", "", channel.name, make("span", "", channel.address(p)));
  const card = make("section", `phone ${channel.key}`, null, title);
  card.setAttribute("aria-label", `${channel.name} of ${p.name}`);
  card.append(...(channel.key === "webchat" ? [chat(p)] : [lines(channel, p), composer(channel)]));
  return card;
}

function lines(channel, p) {
  const list = make("ol", "lines");
  list.dataset.channel = channel.key;
  list.dataset.address = channel.address(p);
  list.setAttribute("role", "log");
  return list;
}

function chat(p) {
  const element = document.createElement("askonce-chat");
  element.setAttribute("inline", "");
  element.setAttribute("api", api);
  element.setAttribute("inbox", inboxesOf("webchat")[0]?.name ?? "webchat");
  element.setAttribute("lang", p.key === "li" ? "zh" : "en");
  const holder = make("div", "holder");
  fetch(`/local/identity/${p.key}`).then((r) => r.json()).then(({ identity }) => {
    if (identity) element.setAttribute("identity", identity);
    holder.append(element);
  });
  return holder;
}

const inboxesOf = (channel) => state.inboxes.filter((inbox) => inbox.channel === channel);

/** Through which of a channel's inboxes the customer writes, where there are several. */
function inboxPicker(channel) {
  const picker = make("select", "inbox");
  picker.setAttribute("aria-label", `Inbox for ${channel.name}`);
  picker.append(...inboxesOf(channel.key).map((inbox) => {
    const option = make("option", "", `${inbox.name} (${inbox.connector})`);
    option.value = inbox.name;
    return option;
  }));
  picker.hidden = picker.options.length < 2;
  return picker;
}

function composer(channel) {
  const form = make("form", "");
  const fields = make("div", "fields");
  const subject = make("input", "");
  subject.type = "text";
  subject.placeholder = "Subject (Re: … answers the last mail)";
  subject.setAttribute("aria-label", "Subject");
  const text = make("textarea", "");
  text.rows = 2;
  text.placeholder = `Write as ${state.people.find((p) => p.key === person).name}`;
  text.setAttribute("aria-label", `${channel.name} message`);
  const inbox = inboxPicker(channel);
  fields.append(inbox, ...(channel.key === "email" ? [subject] : []), text);
  const picker = make("input", "");
  picker.type = "file";
  picker.hidden = true;
  const attach = make("button", "file", "＋");
  attach.type = "button";
  attach.setAttribute("aria-label", "Attach a file");
  attach.onclick = () => picker.click();
  picker.onchange = () => { attach.textContent = picker.files.length ? "📎" : "＋"; };
  const send = make("button", "", "Send");
  form.append(picker, attach, fields, send);
  form.onsubmit = async (event) => {
    event.preventDefault();
    const file = picker.files[0] ? await encoded(picker.files[0]) : null;
    if (!text.value.trim() && !file) return;
    const said = { person, inbox: inbox.value || channel.key, text: text.value, subject: subject.value, file };
    const chosenInbox = inbox.value;
    form.reset();
    inbox.value = chosenInbox;
    attach.textContent = "＋";
    await post("/local/say", said);
  };
  text.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  };
  return form;
}

function encoded(file) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done({ name: file.name, media_type: file.type || "application/octet-stream", content: reader.result.split(",")[1] });
    reader.readAsDataURL(file);
  });
}

function showLines() {
  for (const list of document.querySelectorAll(".lines")) {
    const { channel, address } = list.dataset;
    // Mail in Li's name that Mallory wrote is on Mallory's screen; what is answered goes to Li's mailbox.
    const own = state.lines.filter((l) => l.channel === channel && l.address === address
      && (channel !== "email" || (l.direction === "out" ? l.sender === person : person !== "mallory")));
    if (list.childElementCount === own.length && own.length) continue;
    list.replaceChildren(...own.map((l) => {
      const item = make("li", l.direction);
      if (l.subject) item.append(make("span", "subject", l.subject));
      const files = (l.files ?? []).map((f) => `📎 ${f.name || f.media_type}`);
      const { text, choices } = chosenFrom(l);
      item.append([text, ...files].filter(Boolean).join("\n"));
      for (const { label, value } of choices) {
        const choice = make("button", "choice", label);
        choice.type = "button";
        choice.onclick = () => post("/local/say", { person, inbox: channel, text: value });
        item.append(choice);
      }
      item.append(make("small", "", `${clock(l.at)}${l.passive ? " · in WeChat's own response" : ""}`));
      return item;
    }));
    if (!own.length) list.append(make("li", "empty", "Nothing yet."));
    list.scrollTop = list.scrollHeight;
  }
}

/** What a phone shows of a line: WeChat's links that say a word are something to tap. */
function chosenFrom(line) {
  const links = /\s*<a href="weixin:\/\/bizmsgmenu\?msgmenucontent=([^&"]*)[^"]*">([^<]*)<\/a>/g;
  const text = line.text ?? "";
  if (line.direction !== "in" || line.channel !== "wechat") return { text, choices: [] };
  const tapped = [...text.matchAll(links)].map(([, value, label]) => ({ value, label }));
  return { text: text.replace(links, ""), choices: [...tapped, ...(line.choices ?? [])] };
}

// The helpdesk

const isMessage = (entry) => !["note", "reply", "closed", "reopened", "set_apart"].includes(entry.kind);

function showTickets() {
  at(".count").textContent = state.tickets.length ? `${state.tickets.length} ticket${state.tickets.length > 1 ? "s" : ""}` : "";
  if (!chosen || !state.tickets.some((t) => t.id === chosen)) chosen = state.tickets[0]?.id ?? null;
  at(".tickets").replaceChildren(...state.tickets.map((t) => {
    const first = t.entries.find(isMessage);
    const row = make("button", "", null,
      make("strong", "", null, make("span", "", t.id), make("span", "", t.reference)),
      make("span", "first", first?.text || first?.kind || ""), chips(t));
    row.type = "button";
    row.setAttribute("aria-current", String(t.id === chosen));
    row.onclick = () => { chosen = t.id; showTickets(); };
    return row;
  }));
  showTicket(state.tickets.find((t) => t.id === chosen));
}

function chips(ticket) {
  const channels = new Set(ticket.entries.filter(isMessage).map((e) => e.channel));
  const holder = make("span", "chips", null, ...[...channels].map((c) => make("span", `chip ${c}`, nameOf(c))));
  if (ticket.priority === "high") holder.append(make("span", "chip high", "high"));
  if (ticket.category !== "question") holder.append(make("span", "chip", ticket.category));
  if (ticket.state === "closed") holder.append(make("span", "chip closed", "closed"));
  return holder;
}

const nameOf = (key) => CHANNELS.find((c) => c.key === key)?.name ?? key;

function showTicket(ticket) {
  const article = at(".ticket");
  if (!ticket) {
    article.dataset.shown = "";
    article.replaceChildren(make("p", "blank", "No tickets yet. Write as a customer on the left: each message is a real webhook, signed and encrypted as its provider does it."));
    return;
  }
  const left = ticket.entries.map((e) => e.id && leftFor(e)?.id);
  const shown = JSON.stringify([ticket.id, ticket.state, ticket.entries.length, left]);
  if (article.dataset.shown === shown) return;
  const draft = article.dataset.ticket === ticket.id ? article.querySelector("textarea")?.value ?? "" : "";
  article.dataset.shown = shown;
  article.dataset.ticket = ticket.id;
  const close = ticket.helpdesk ? theirs(ticket) : make("button", "", ticket.state === "closed" ? "Reopen" : "Close");
  if (!ticket.helpdesk) {
    close.type = "button";
    close.onclick = () => post("/local/agent", { ticket: ticket.id, act: ticket.state === "closed" ? "reopen" : "close" });
  }
  const entries = make("ol", "entries", null, ...ticket.entries.map((e) => entry(e, ticket)));
  article.replaceChildren(
    make("div", "head", null, make("div", "", null, make("strong", "", `${ticket.id} · ${ticket.reference}`), chips(ticket)), close),
    entries, make("p", "live", live.get(ticket.id) ?? ""),
    ticket.helpdesk ? make("p", "live", `Answer it in ${ticket.helpdesk}: the reply comes back from there.`) : answerForm(ticket, draft));
  entries.scrollTop = entries.scrollHeight;
  if (!document.hidden && !ticket.helpdesk) sign(ticket, "read");
}

/** The same ticket as its own helpdesk shows it, in a page beside this one. */
function theirs(ticket) {
  const link = make("a", "", `Open in ${ticket.helpdesk}`);
  link.href = /^https?:/.test(ticket.url) ? ticket.url : "#";
  link.target = "_blank";
  link.rel = "noopener";
  return link;
}

// Web chat: what the other side does at this moment

const live = new Map();

/** Let the customer see that the agent reads or types: at most every three seconds. */
function sign(ticket, act) {
  const key = `${ticket.id} ${act}`;
  if (!isChat(ticket) || Date.now() - (sign[key] ?? 0) < 3000) return;
  sign[key] = Date.now();
  fetch("/local/agent", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ticket: ticket.id, act }),
  }).catch(() => {});
}

const isChat = (ticket) => ticket.entries.some((e) => e.channel === "webchat");

function showCustomer(visitor, words, seconds) {
  const address = state.visitors[visitor];
  for (const ticket of state.tickets.filter((t) => t.entries.some((e) => e.address === address))) {
    live.set(ticket.id, words);
    const line = at(".ticket .live");
    if (ticket.id === chosen && line) line.textContent = words;
    clearTimeout(showCustomer[ticket.id]);
    if (seconds) showCustomer[ticket.id] = setTimeout(() => showCustomer(visitor, ""), seconds * 1000);
  }
}

/** Messages that somebody said are another question: they are on a ticket of their own. */
const leftFor = (e) => state.tickets.find((t) => t.entries.some((x) => x.id === e.id && x.verdict?.rule === "undone"));

/** Why a message joined the ticket, and the way to take it out again. */
function joined(e, ticket) {
  const { outcome, evidence, veto, opinion } = e.verdict;
  const facts = [evidence?.length && `Both say: ${evidence.join("; ")}`, veto && `Not answered: ${veto}`, opinion && `Second opinion: ${opinion}`];
  const box = make("div", "why", facts.filter(Boolean).join(" · "));
  const other = leftFor(e);
  if (other && other.id !== ticket.id) box.append(make("b", "", ` Now on ticket ${other.id}.`));
  else if (["repeat", "related"].includes(outcome) && !other) {
    const button = make("button", "apart", "Not the same question");
    button.type = "button";
    button.onclick = () => { button.disabled = true; post("/local/agent", { ticket: ticket.id, act: "set_apart", text: e.id }); };
    box.append(button);
  }
  return box;
}

function entry(e, ticket) {
  if (!isMessage(e)) return remark(e);
  const proven = e.evidence.some((x) => x.address === e.address && x.level === "verified");
  const by = make("div", "by", null, make("span", "chip", nameOf(e.channel)));
  const verdict = e.verdict ?? {};
  by.append(make("span", `chip ${verdict.outcome}`, (verdict.outcome ?? "").replace("_", "-")));
  if (verdict.score !== null && verdict.score !== undefined) by.append(make("span", "", `score ${verdict.score.toFixed(2)}`));
  by.append(make("span", "", e.address), make("time", "", clock(e.received_at)));
  if (!proven) by.append(make("span", "unproven", "sender not proven"));
  const item = make("li", e.channel, null, by, make("div", "said", [e.subject && `${e.subject}\n`, e.text].filter(Boolean).join("") || `(${e.kind})`));
  for (const file of e.files ?? []) item.append(attachment(file));
  if (e.location) item.append(make("div", "said", `📍 ${e.location.label} (${e.location.latitude}, ${e.location.longitude})`));
  if (e.link) item.append(make("div", "said", `🔗 ${e.link.title} ${e.link.url}`));
  if (verdict.reason) item.append(make("div", "why", `Why: ${verdict.reason}`), joined(e, ticket));
  return item;
}

function attachment(file) {
  if (file.content && /^image\/(png|jpeg|gif|webp)$/.test(file.media_type)) {
    const image = make("img", "");
    image.src = `data:${file.media_type};base64,${file.content}`;
    image.alt = file.name || "attached image";
    return image;
  }
  const label = `📎 ${file.name || file.media_type}${file.unavailable ? `: ${file.unavailable}` : ""}`;
  return make("div", "said", file.transcript ? `${label}\n“${file.transcript}”` : label);
}

function remark(e) {
  const titles = { note: e.agent ? `Note by ${e.agent}` : "Note by AskOnce", reply: `Answer by ${e.agent}`, closed: "Closed", reopened: "Reopened", set_apart: `${e.agent}: not the same question` };
  const by = make("div", "by", null, make("strong", "", titles[e.kind]), make("time", "", clock(e.at)));
  if (e.kind === "reply") by.append(make("span", "fate", fates.get(e.event) ?? ""));
  const item = make("li", e.kind, null, by, make("div", "said", e.text));
  item.dataset.event = e.event ?? "";
  return item;
}

// What became of answers

const fates = new Map();

async function showFates() {
  const items = [...document.querySelectorAll(".entries li.reply")];
  if (!chosen || !items.length) return;
  const found = await fetch(`/local/fates/${chosen}`).then((r) => r.json()).catch(() => ({}));
  for (const [event, words] of Object.entries(found)) fates.set(event, words);
  for (const item of items) item.querySelector(".fate").textContent = fates.get(item.dataset.event) ?? "";
}

function answerForm(ticket, draft) {
  const form = make("form", "");
  const text = make("textarea", "");
  text.rows = 2;
  text.value = draft;
  text.placeholder = "Answer the customer, or leave a note for colleagues";
  text.setAttribute("aria-label", "Answer");
  const reply = make("button", "", "Answer");
  const note = make("button", "quiet", "Note");
  note.type = "button";
  const act = async (kind) => {
    if (!text.value.trim()) return;
    const said = text.value;
    text.value = "";
    await post("/local/agent", { ticket: ticket.id, act: kind, text: said });
  };
  note.onclick = () => act("note");
  text.oninput = () => sign(ticket, "typing");
  form.onsubmit = (event) => { event.preventDefault(); act("reply"); };
  form.append(text, note, reply);
  return form;
}

// Keeping up

function show() {
  showPeople();
  buildPhones();
  showLines();
  showTickets();
}

let refreshing = null;
let again = false;
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = fetch("/local/state").then((r) => r.json()).then((found) => { state = found; show(); return showFates(); })
    .catch(() => {}).finally(() => {
      refreshing = null;
      if (again) { again = false; refresh(); }
    });
  await refreshing;
}

function follow() {
  const log = at(".events ol");
  const source = new EventSource("/local/events");
  source.onmessage = ({ data }) => {
    const { at: time, event, ...fields } = JSON.parse(data);
    if (event === "visitor.typing") showCustomer(fields.visitor, "The customer is typing …", 5);
    if (event === "visitor.read") showCustomer(fields.visitor, "The customer has read your answer.");
    const words = Object.entries(fields).map(([k, v]) => `${k}=${v}`).join("  ");
    log.append(make("li", `is-${event.split(".")[0]}`, null, make("time", "", clock(time)), make("b", "", event), ` ${words}`));
    while (log.childElementCount > 200) log.firstChild.remove();
    log.scrollTop = log.scrollHeight;
    clearTimeout(follow.timer);
    follow.timer = setTimeout(refresh, 60);
  };
}

await refresh();
follow();
setInterval(refresh, 3000); // providers deliver without an event of ours
