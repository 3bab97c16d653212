// Testcontainers for Node: what people write in the tests of their own projects. Prints a word for every step.
const assert = require("node:assert/strict");
const { once } = require("node:events");
const fs = require("node:fs/promises");
const path = require("node:path");
const os = require("node:os");
const { GenericContainer, Network, Wait } = require("testcontainers");

const SERVER = ["sh", "-c", "echo $GREETING >/www/index.html; echo ready to serve; exec httpd -f -p 8080 -h /www"];

async function text(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts.map((part) => Buffer.from(part))).toString();
}

async function main() {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "clients-"));
  await fs.writeFile(path.join(folder, "page.html"), "from the host\n");
  const network = await new Network().start();
  const server = await new GenericContainer("busybox:latest")
    .withCommand(SERVER)
    .withEnvironment({ GREETING: "hello" })
    .withExposedPorts(8080)
    .withTmpFs({ "/www": "" })
    .withBindMounts([{ source: folder, target: "/www/host", mode: "ro" }])
    .withLabels({ part: "server" })
    .withNetwork(network)
    .withNetworkAliases("server")
    .withCopyContentToContainer([{ content: "copied before\n", target: "/tmp/before" }])
    .withHealthCheck({ test: ["CMD-SHELL", "test -e /www/index.html"], interval: 300, timeout: 1000, retries: 5 })
    .withWaitStrategy(
      Wait.forAll([
        Wait.forLogMessage("ready to serve"),
        Wait.forListeningPorts(),
        Wait.forHttp("/", 8080).forStatusCode(200),
        Wait.forHealthCheck(),
      ]),
    )
    .start();
  console.log("start wait");
  const address = `http://${server.getHost()}:${server.getMappedPort(8080)}`;
  assert.equal(await (await fetch(address)).text(), "hello\n");
  assert.equal(await (await fetch(`${address}/host/page.html`)).text(), "from the host\n");
  console.log("port volume");
  const done = await server.exec(["sh", "-c", "echo inside; echo wrong >&2; exit 3"]);
  assert.deepEqual([done.exitCode, done.stdout, done.stderr], [3, "inside\n", "wrong\n"]);
  console.log("exec");
  const alive = setInterval(() => {}, 1000); // this stream alone does not keep node running
  const logs = await server.logs({ tail: 1 });
  assert.match((await once(logs, "data")).toString(), /ready to serve/);
  logs.destroy();
  clearInterval(alive);
  console.log("logs");
  assert.equal((await server.exec(["cat", "/tmp/before"])).output, "copied before\n");
  await server.copyFilesToContainer([{ source: path.join(folder, "page.html"), target: "/tmp/page.html" }]);
  const archive = await server.copyArchiveFromContainer("/tmp/page.html");
  assert.match(await text(archive), /from the host/);
  console.log("copy");
  const client = await new GenericContainer("busybox:latest").withNetwork(network).withCommand(["sleep", "100"]).start();
  assert.equal((await client.exec(["wget", "-qO-", "http://server:8080/"])).output, "hello\n");
  console.log("network");
  await server.restart();
  console.log("restart");
  await client.stop();
  await server.stop();
  await network.stop();
  await fs.rm(folder, { recursive: true });
  console.log("remove");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
