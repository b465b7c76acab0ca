// A bare `ws` echo server on Node, the limit we walk towards: node echo_node.cjs PATH_OF_WS PORT
const { WebSocketServer } = require(process.argv[2]);
new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[3]), perMessageDeflate: false }).on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
