"""The blocking socket API of the bundled stack, as scripts see it: results and errnos are those of Linux."""

from __future__ import annotations

import pytest

from tests.packetdrill.engine.scripts import MPTCP_ACCEPTED, TCP_ACCEPTED, play

DATA = "+0 < P. 1:11(10) ack 1 win 256\n"
SCRIPTS = {
    "pipe and splice": TCP_ACCEPTED + DATA + "+0 pipe([5, 6]) = 0\n"
    "+0 splice(4, NULL, 6, NULL, 100, 0) = 10\n"
    "+0 splice(5, NULL, 4, NULL, 4, 0) = 4\n"
    "+0 > . 1:1(0) ack 11\n"
    "+0 > P. 1:5(4) ack 11\n"
    "+0 read(5, ..., 100) = 6\n"
    "+0 close(6) = 0\n"
    "+0 read(5, ..., 100) = 0\n",
    "vectors": TCP_ACCEPTED + '+0 writev(4, [{"abc", 3}, {"de", 2}], 2) = 5\n'
    "+0 > P. 1:6(5) ack 1\n" + DATA + "+0 readv(4, [{..., 4}, {..., 100}], 2) = 10\n",
    "messages": TCP_ACCEPTED
    + '+0 sendmsg(4, {msg_name(...)=..., msg_iov(1)=[{"abc", 3}], msg_flags=0}, 0) = 3\n'
    "+0 > P. 1:4(3) ack 1\n"
    + DATA
    + "+0 recvmsg(4, {msg_name(...)=..., msg_iov(1)=[{..., 100}], msg_flags=0}, 0) = 10\n",
    "peek": TCP_ACCEPTED + DATA + "+0 recv(4, ..., 4, MSG_PEEK) = 4\n+0 ioctl(4, SIOCINQ, [10]) = 0\n"
    "+0 recvfrom(4, ..., 100, 0, ..., ...) = 10\n+0 recv(4, ..., 9, MSG_DONTWAIT) = -1 EAGAIN (again)\n",
    "wait for all": TCP_ACCEPTED
    + "+0...0.2 recv(4, ..., 20, MSG_WAITALL) = 20\n+.1 < P. 1:11(10) ack 1 win 256\n"
    "+.1 < P. 11:21(10) ack 1 win 256\n",
    "epoll": TCP_ACCEPTED + "+0 epoll_create(1) = 5\n"
    "+0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLIN, fd=4}) = 0\n"
    "+0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLIN, fd=4}) = -1 EEXIST (exists)\n"
    "+0 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 0) = 0\n"
    "+0...0.1 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 500) = 1\n"
    "+.1 < P. 1:11(10) ack 1 win 256\n"
    "+0 epoll_pwait(5, {events=EPOLLIN, fd=4}, 1, 0, NULL) = 1\n"
    "+0 epoll_ctl(5, EPOLL_CTL_DEL, 4, ...) = 0\n"
    "+0 epoll_ctl(5, EPOLL_CTL_DEL, 4, ...) = -1 ENOENT (none)\n",
    "poll with time-out": TCP_ACCEPTED + "+0...0.5 poll([{fd=4, events=POLLIN, revents=0}], 1, 500) = 0\n",
    "poll after the end": TCP_ACCEPTED + "+0 < F. 1:1(0) ack 1 win 256\n"
    "+0 poll([{fd=4, events=POLLIN|POLLRDHUP, revents=POLLIN|POLLRDHUP}], 1, 0) = 1\n",
    "names": TCP_ACCEPTED
    + '+0 getsockname(4, {sa_family=AF_INET, sin_port=htons(8080), sin_addr=inet_addr("192.168.0.1")},'
    " [16]) = 0\n"
    "+0 getpeername(3, ..., ...) = -1 ENOTCONN (not connected)\n",
    "shutdown": TCP_ACCEPTED + "+0 shutdown(4, SHUT_WR) = 0\n+0 > F. 1:1(0) ack 1\n"
    "+0 write(4, ..., 1) = -1 EPIPE (broken pipe)\n+0 shutdown(3, SHUT_WR) = -1 ENOTCONN (not connected)\n",
    "options": TCP_ACCEPTED + "+0 setsockopt(4, SOL_TCP, TCP_NODELAY, [1], 4) = 0\n"
    "+0 getsockopt(4, SOL_TCP, TCP_NODELAY, [1], [4]) = 0\n"
    "+0 setsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=5}, 8) = 0\n"
    "+0 getsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=5}, [8]) = 0\n"
    "+0 setsockopt(4, SOL_TCP, TCP_ULP, [1], 4) = -1 ENOPROTOOPT (no such option)\n"
    "+0 getsockopt(4, SOL_TCP, TCP_IS_MPTCP, [0], [4]) = 0\n",
    "congestion control": TCP_ACCEPTED + '+0 setsockopt(4, SOL_TCP, TCP_CONGESTION, "cubic", 5) = 0\n'
    '+0 getsockopt(4, SOL_TCP, TCP_CONGESTION, "cubic\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0", [16]) = 0\n'
    '+0 setsockopt(4, SOL_TCP, TCP_CONGESTION, "none", 4) = -1 ENOENT (none of that name)\n',
    "options without a counterpart": TCP_ACCEPTED
    + '+0 setsockopt(4, SOL_TCP, TCP_MD5SIG, {tcpm_addr=..., tcpm_key="secret"}, ...) = -1 ENOPROTOOPT\n',
    "time-outs": TCP_ACCEPTED
    + "+0 setsockopt(4, SOL_SOCKET, SO_RCVTIMEO, {tv_sec=1, tv_usec=500000}, 16) = 0\n"
    "+0 getsockopt(4, SOL_SOCKET, SO_RCVTIMEO, {tv_sec=1, tv_usec=500000}, [16]) = 0\n"
    "+0 getsockopt(4, SOL_SOCKET, SO_SNDTIMEO, {tv_sec=0, tv_usec=0}, [16]) = 0\n"
    "+0...1.5 recv(4, ..., 1, MSG_PEEK) = -1 EAGAIN\n+2 pipe([5, 6]) = 0\n"
    "+0...1.5 splice(4, NULL, 6, NULL, 9, 0) = -1 EAGAIN\n",
    "is MPTCP": MPTCP_ACCEPTED + "+0 getsockopt(4, SOL_TCP, TCP_IS_MPTCP, [1], [4]) = 0\n",
    "accept without a connection": TCP_ACCEPTED
    + "+0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n+0 accept(3, ..., ...) = -1 EAGAIN (again)\n"
    "+0 accept(4, ..., ...) = -1 EINVAL (not listening)\n",
    "bind twice": TCP_ACCEPTED
    + "+0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 5\n+0 bind(5, ..., ...) = -1 EADDRINUSE (in use)\n",
    "unconnected": "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n"
    "+0 read(3, ..., 10) = -1 ENOTCONN (not connected)\n+0 write(3, ..., 10) = -1 EPIPE (broken pipe)\n"
    "+0 close(3) = 0\n+0 close(3) = -1 EBADF (closed)\n"
    "+0 socket(AF_INET, SOCK_DGRAM, 0) = -1 ESOCKTNOSUPPORT\n",
    "lingering close": TCP_ACCEPTED + "+0 setsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=5}, 8) = 0\n"
    "+0...0.1 close(4) = 0\n+0 > F. 1:1(0) ack 1\n+.1 < . 1:1(0) ack 2 win 256\n",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_calls(name: str) -> None:
    play(SCRIPTS[name])
