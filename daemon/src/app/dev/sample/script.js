"use strict";
const at = id => document.getElementById(id);

new EventSource("/events").onmessage = event => { at("tick").textContent = event.data; };

// Opened with the first message. While it is closed, the next message opens it again.
let current = null;
const line = text => {
  const item = document.createElement("li");
  item.textContent = text;
  at("echoes").prepend(item);
  while (at("echoes").children.length > 5) at("echoes").lastChild.remove();
};
const open = () => {
  const socket = new WebSocket(`wss://${location.host}/socket`);
  // Messages that wait for the connection, and the times of those that are under way. Echoes come in their order.
  const waiting = [], sent = [];
  const send = said => { sent.push(performance.now()); socket.send(said); };
  socket.onopen = () => { while (waiting.length) send(waiting.shift()); };
  socket.onmessage = answer => line(`${answer.data} (back after ${(performance.now() - sent.shift()).toFixed(1)} ms)`);
  socket.onclose = () => {
    if (current && current.socket === socket) current = null;
    line("the WebSocket is closed");
  };
  return { socket, say: said => { socket.readyState === WebSocket.OPEN ? send(said) : waiting.push(said); } };
};
at("echo").onsubmit = event => {
  event.preventDefault();
  if (!current || current.socket.readyState > WebSocket.OPEN) current = open();
  current.say(event.target.elements.said.value);
};

at("upload").onsubmit = event => {
  event.preventDefault();
  const file = event.target.elements.file.files[0];
  const request = new XMLHttpRequest();
  request.open("POST", "/upload");
  request.setRequestHeader("Accept", "application/json");
  request.upload.onprogress = sent => { at("uploaded").textContent = `${sent.loaded} of ${sent.total} bytes are sent`; };
  request.onerror = () => { at("uploaded").textContent = "the upload broke off"; };
  request.onload = () => {
    if (request.status !== 200) return request.onerror();
    const { bytes, seconds, sha256 } = JSON.parse(request.responseText);
    at("uploaded").textContent = `${bytes} bytes arrived in ${seconds} s, SHA-256 ${sha256}`;
  };
  request.send(file);
};
