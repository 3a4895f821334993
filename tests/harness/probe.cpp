// Tries one thing from inside the walls and prints what came of it: probe WHAT [argument]...
#include <arpa/inet.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

int say(const char* what, bool could) { return std::printf("%s: %s\n", what, could ? "yes" : "no") < 0; }

int connect_to(int port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  return say("network", fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
}

int connect_to_abstract(const char* name) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::strcpy(to.sun_path + 1, name);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  const socklen_t size = offsetof(sockaddr_un, sun_path) + 1 + std::strlen(name);
  return say("abstract socket", fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&to), size) == 0);
}

int processes() {
  std::string seen;
  for (int pid = 1; pid < 40000; ++pid)
    if (pid != getpid() && (kill(pid, 0) == 0 || errno != ESRCH)) seen += " " + std::to_string(pid);
  return std::printf("others:%s\nparent: %d\n", seen.c_str(), getppid()) < 0;
}

int descriptors() {
  std::string open;
  for (int fd = 0; fd < 4096; ++fd)
    if (fcntl(fd, F_GETFD) >= 0) open += " " + std::to_string(fd);
  return std::printf("open:%s\n", open.c_str()) < 0;
}

int privileges() {
  say("become root", setuid(0) == 0 || seteuid(0) == 0);
  say("mount", mount("tmpfs", "/tmp", "tmpfs", 0, nullptr) == 0);
  say("trace the first process", ptrace(PTRACE_ATTACH, 1, nullptr, nullptr) == 0);
  say("name the machine", sethostname("mine", 4) == 0);
  return say("raise a limit", nice(-5) != -1);
}

int allocate() {
  size_t got = 0;
  const size_t piece = 16 << 20;
  while (void* at = std::malloc(piece)) {
    std::memset(at, 1, piece);
    got += piece;
  }
  return std::printf("MiB: %zu\n", got >> 20) < 0;
}

// Forks until it may not, then waits for its end like all its children.
int fork_bomb() {
  int made = 0;
  for (; made < 100000; ++made) {
    const pid_t child = fork();
    if (child < 0) break;
    if (child == 0) for (;;) pause();
  }
  return std::printf("children: %d\n", made) < 0;
}

// Leaves a process behind that no longer belongs to the caller's group, session, or output; it sleeps, or spins.
int leave_behind(char** argv, bool spin) {
  if (fork() > 0) return say("left", true);
  setsid();
  if (fork() > 0) _exit(0);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  for (int fd = 0; fd < 64; ++fd) close(fd);
  for (volatile long i = 0; i >= 0; i = i + 1)
    if (!spin) pause();
  return argv[0] == nullptr;
}

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "connect") return connect_to(std::atoi(argv[2]));
  if (what == "abstract") return connect_to_abstract(argv[2]);
  if (what == "processes") return processes();
  if (what == "descriptors") return descriptors();
  if (what == "privileges") return privileges();
  if (what == "allocate") return allocate();
  if (what == "fork-bomb") return fork_bomb();
  if (what == "leave-behind") return leave_behind(argv, false);
  if (what == "leave-spinning") return leave_behind(argv, true);
  if (what == "silent") { close(1); close(2); for (;;) pause(); }
  return 9;
}
