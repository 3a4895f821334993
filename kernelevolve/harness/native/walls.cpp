// Raises walls around itself, then becomes the program that it is given:
//
//   walls [--namespaces] [--uid N] [--ro PATH]... [--rw PATH]... [--hide PATH]... [--device PATH]... [--cwd PATH]
//         [--status FD] [--errors FD] [--seccomp FILE] [--memory BYTES] [--cpu SECONDS] [--file-size BYTES]
//         [--processes N] -- program [argument]...
//
// With --namespaces the program sees the system's libraries, the named folders (those to hide are empty, wherever they
// lie) and an empty /tmp, nothing else of the file system, and no other process, network or IPC object. A wall that
// can't be raised is an error (exit 125), never skipped: whoever calls has tried first what works here. What went wrong
// is written to --errors, which the program never has, so that it can't say the same. With --status the program's pid,
// as the caller sees it, is written to that descriptor before the program starts. With --device it sees that device
// node, and beside it /sys (read-only) and a /proc of its own processes, where drivers look for what the machine has.
// --seccomp names a filter of system calls, as libseccomp exports it.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

int errors = STDERR_FILENO;
constexpr rlim_t kOpenFiles = 1024;  // Python with torch and a driver needs a few hundred

struct Options {
  bool namespaces = false;
  uid_t uid = 0;  // 0: keep
  std::vector<std::string> readable, writable, hidden, devices;
  std::string folder = "/";
  int status = -1;
  std::vector<std::pair<int, rlim_t>> limits;
  std::vector<sock_filter> filter;  // system calls; empty: any
  char** program = nullptr;
};

[[noreturn]] void die(const std::string& what) {
  dprintf(errors, "walls: %s: %s\n", what.c_str(), std::strerror(errno));
  _exit(125);
}

void check(bool ok, const std::string& what) {
  if (!ok) die(what);
}

void make_folders(const std::string& path) {
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1))
    mkdir(path.substr(0, at).c_str(), 0755);
}

void write_file(const char* path, const std::string& text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  check(fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()), path);
  close(fd);
}

// A mount keeps what its parent forbids, so the old flags have to be repeated.
void remount(const std::string& place, bool writable) {
  struct statvfs old;
  check(statvfs(place.c_str(), &old) == 0, "statvfs " + place);
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | (writable ? 0 : MS_RDONLY);
  if (old.f_flag & ST_RDONLY) flags |= MS_RDONLY;
  if (old.f_flag & ST_NOEXEC) flags |= MS_NOEXEC;
  if (old.f_flag & ST_NOATIME) flags |= MS_NOATIME;
  if (old.f_flag & ST_NODIRATIME) flags |= MS_NODIRATIME;
  if (old.f_flag & ST_RELATIME) flags |= MS_RELATIME;
  check(mount(nullptr, place.c_str(), nullptr, flags, nullptr) == 0, "remount " + place);
}

// Shows what `fd` was opened on at `path` under `root`.
void show(const std::string& root, const std::string& path, int fd, bool writable) {
  struct stat info;
  check(fstat(fd, &info) == 0, "stat " + path);
  const std::string place = root + path, source = "/proc/self/fd/" + std::to_string(fd);
  make_folders(place);
  if (S_ISDIR(info.st_mode)) mkdir(place.c_str(), 0755);
  else close(open(place.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  check(mount(source.c_str(), place.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0, "bind " + path);
  if (!S_ISCHR(info.st_mode)) remount(place, writable);
}

void enter_own_root(const Options& options) {
  check(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private mounts");
  struct Place { std::string path; int fd; bool writable; };
  std::vector<Place> places;
  std::vector<std::pair<std::string, std::string>> links;  // /lib -> usr/lib and the like
  for (const char* path : {"/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/dev/null",
                           "/dev/zero", "/dev/urandom"}) {
    char target[4096];
    const ssize_t n = readlink(path, target, sizeof target);
    if (n > 0) links.emplace_back(path, std::string(target, n));
    else if (access(path, F_OK) == 0) places.push_back({path, open(path, O_PATH | O_CLOEXEC), false});
  }
  for (const auto& path : options.readable) places.push_back({path, open(path.c_str(), O_PATH | O_CLOEXEC), false});
  for (const auto& path : options.devices) places.push_back({path, open(path.c_str(), O_PATH | O_CLOEXEC), true});
  std::vector<Place> told;  // what drivers read, for where no /proc of its own can be had
  if (!options.devices.empty()) {
    places.push_back({"/sys", open("/sys", O_PATH | O_CLOEXEC), false});
    for (const char* path : {"/proc/driver", "/proc/devices", "/proc/modules", "/proc/cpuinfo", "/proc/meminfo"})
      if (access(path, F_OK) == 0) told.push_back({path, open(path, O_PATH | O_CLOEXEC), false});
  }
  for (const auto& path : options.writable) places.push_back({path, open(path.c_str(), O_PATH | O_CLOEXEC), true});
  const std::string root = "/tmp";  // covered in this namespace alone, after everything was opened
  check(mount("tmpfs", root.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=256m,mode=755") == 0, "tmpfs");
  for (const auto& [path, target] : links)
    check(symlink(target.c_str(), (root + path).c_str()) == 0, "symlink " + path);
  for (const auto& place : places) {
    check(place.fd >= 0, "open " + place.path);
    show(root, place.path, place.fd, place.writable);
    close(place.fd);
  }
  if (!options.devices.empty()) {
    mkdir((root + "/proc").c_str(), 0755);
    if (mount("proc", (root + "/proc").c_str(), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
      for (const auto& place : told) show(root, place.path, place.fd, false);
    for (const auto& place : told) close(place.fd);
  }
  for (const auto& path : options.hidden) {
    const std::string place = root + path;
    if (access(place.c_str(), F_OK) == 0)
      check(mount("tmpfs", place.c_str(), "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=0") == 0, "hide " + path);
  }
  mkdir((root + "/tmp").c_str(), 0755);
  check(chmod((root + "/tmp").c_str(), 01777) == 0, "chmod /tmp");
  check(chdir(root.c_str()) == 0, "chdir");
  check(syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
  check(umount2(".", MNT_DETACH) == 0, "umount");
}

void enter_namespaces() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
  if (uid != 0) flags |= CLONE_NEWUSER;
  check(unshare(flags) == 0, "unshare");
  if (uid == 0) return;
  write_file("/proc/self/setgroups", "deny");
  write_file("/proc/self/uid_map", "1000 " + std::to_string(uid) + " 1");
  write_file("/proc/self/gid_map", "1000 " + std::to_string(gid) + " 1");
}

void drop_privileges(const Options& options) {
  if (options.uid != 0) {
    check(setgroups(0, nullptr) == 0, "setgroups");
    check(setresgid(options.uid, options.uid, options.uid) == 0, "setresgid");
    check(setresuid(options.uid, options.uid, options.uid) == 0, "setresuid");
  }
  check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
  for (auto [resource, value] : options.limits) {
    struct rlimit limit;
    check(getrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0, "getrlimit");
    if (value < limit.rlim_max) limit.rlim_max = value;
    limit.rlim_cur = limit.rlim_max;
    check(setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0, "setrlimit");
  }
  if (options.filter.empty()) return;
  auto* calls = const_cast<sock_filter*>(options.filter.data());
  const sock_fprog program = {static_cast<unsigned short>(options.filter.size()), calls};
  check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
}

std::vector<sock_filter> read_filter(const char* path) {
  std::vector<sock_filter> filter(BPF_MAXINSNS);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t bytes = fd < 0 ? -1 : read(fd, filter.data(), filter.size() * sizeof(sock_filter));
  check(bytes > 0 && bytes % sizeof(sock_filter) == 0, path);
  close(fd);
  filter.resize(bytes / sizeof(sock_filter));
  return filter;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--namespaces") { options.namespaces = true; continue; }
    if (flag == "--") { options.program = argv + i + 1; break; }
    if (i + 1 >= argc) break;
    const char* value = argv[++i];
    if (flag == "--uid") options.uid = std::strtoul(value, nullptr, 10);
    else if (flag == "--ro") options.readable.push_back(value);
    else if (flag == "--rw") options.writable.push_back(value);
    else if (flag == "--hide") options.hidden.push_back(value);
    else if (flag == "--device") options.devices.push_back(value);
    else if (flag == "--cwd") options.folder = value;
    else if (flag == "--status") options.status = std::atoi(value);
    else if (flag == "--errors") fcntl(errors = std::atoi(value), F_SETFD, FD_CLOEXEC);
    else if (flag == "--seccomp") options.filter = read_filter(value);
    else if (flag == "--memory") options.limits.emplace_back(RLIMIT_AS, std::strtoull(value, nullptr, 10));
    else if (flag == "--cpu") options.limits.emplace_back(RLIMIT_CPU, std::strtoull(value, nullptr, 10));
    else if (flag == "--file-size") options.limits.emplace_back(RLIMIT_FSIZE, std::strtoull(value, nullptr, 10));
    else if (flag == "--processes") options.limits.emplace_back(RLIMIT_NPROC, std::strtoull(value, nullptr, 10));
    else { errno = EINVAL; die(flag); }
  }
  errno = EINVAL;
  check(options.program && options.program[0], "no program");
  return options;
}

void report(int status, pid_t program) {
  if (status >= 0) check(write(status, &program, sizeof program) == sizeof program, "status");
}

// Waits for the program, ends what it left behind, and ends the same way, so that the caller learns the signal.
[[noreturn]] void end_like(pid_t program, pid_t init) {
  int status = 0;
  while (waitpid(program, &status, 0) < 0 && errno == EINTR) {}
  kill(init, SIGKILL);
  if (WIFSIGNALED(status)) {
    signal(WTERMSIG(status), SIG_DFL);
    kill(getpid(), WTERMSIG(status));
    pause();
  }
  _exit(WEXITSTATUS(status));
}

// Returns, in the process that is to be the program, once all walls stand.
Options raise_walls(int argc, char** argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  umask(022);  // the folders made here are for another user
  Options options = parse(argc, argv);
  options.limits.emplace_back(RLIMIT_CORE, 0);
  options.limits.emplace_back(RLIMIT_NOFILE, kOpenFiles);
  if (options.namespaces) {
    enter_namespaces();
    // The first process of the namespace only waits: the kernel shields it from its own signals, so a program in its
    // place couldn't abort. When it dies, everything in the namespace dies with it.
    const pid_t init = fork();
    check(init >= 0, "fork");
    if (init == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
      syscall(SYS_close_range, 0u, ~0u, 0u);
      signal(SIGCHLD, SIG_IGN);
      for (;;) pause();
    }
    const pid_t child = fork();
    check(child >= 0, "fork");
    if (child > 0) {
      report(options.status, child);
      for (int fd = 3; fd < 1024; ++fd) close(fd);
      end_like(child, init);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    enter_own_root(options);
  } else {
    report(options.status, getpid());
  }
  if (options.status >= 0) close(options.status);
  check(chdir(options.folder.c_str()) == 0, "chdir " + options.folder);
  drop_privileges(options);
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);  // a change of user has cleared it
  return options;
}

}  // namespace

#ifdef WALLS_AS_FUNCTION
// For a process that was forked with its program already in it: what comes after "--" is only a name.
extern "C" void kernelevolve_raise_walls(int argc, char** argv) {
  raise_walls(argc, argv);
  close(errors);  // a program that is started never had it
}
#else
int main(int argc, char** argv) {
  const Options options = raise_walls(argc, argv);
  execv(options.program[0], options.program);
  die(std::string("exec ") + options.program[0]);
}
#endif
