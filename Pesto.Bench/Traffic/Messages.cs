using System.Runtime.InteropServices;
using Pesto.Linux;

namespace Pesto.Bench.Traffic;

/// <summary>An array of struct mmsghdr with a buffer, an address and room for one control message each, for recvmmsg and sendmmsg.</summary>
sealed unsafe class Messages
{
    const int ControlSize = 32;

    [StructLayout(LayoutKind.Sequential)]
    struct IoVector
    {
        public byte* Base;
        public nuint Length;
    }

    [StructLayout(LayoutKind.Sequential)]
    struct Message
    {
        public SocketAddress* Name;
        public uint NameLength;
        public IoVector* Vectors;
        public nuint VectorCount;
        public byte* Control;
        public nuint ControlLength;
        public long Flags;
        public uint Transferred;
    }

    readonly int _size;
    readonly Message* _messages;
    readonly IoVector* _vectors;
    readonly SocketAddress* _names;
    readonly byte* _buffers;
    readonly byte* _controls;

    public Messages(int count, int size)
    {
        Count = count;
        _size = size;
        _messages = (Message*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(Message));
        _vectors = (IoVector*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(IoVector));
        _names = (SocketAddress*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(SocketAddress));
        _buffers = (byte*)NativeMemory.AllocZeroed((nuint)count, (nuint)size);
        _controls = (byte*)NativeMemory.AllocZeroed((nuint)count, ControlSize);
        for (int i = 0; i < count; i++)
        {
            _vectors[i] = new() { Base = _buffers + ((nint)i * size), Length = (nuint)size };
            _messages[i].Vectors = _vectors + i;
            _messages[i].VectorCount = 1;
        }
    }

    public int Count { get; }

    /// <summary>How many datagrams were received, or a negative number.</summary>
    public int Receive(int fd, bool withControl)
    {
        for (int i = 0; i < Count; i++)
        {
            _messages[i].Name = _names + i;
            _messages[i].NameLength = (uint)sizeof(SocketAddress);
            _messages[i].Control = withControl ? _controls + (i * ControlSize) : null;
            _messages[i].ControlLength = withControl ? ControlSize : 0u;
            _vectors[i].Length = (nuint)_size;
        }

        return Libc.recvmmsg(fd, _messages, (uint)Count, Kernel.MSG_DONTWAIT, null);
    }

    public uint Length(int i) => _messages[i].Transferred;

    /// <summary>The size of the datagrams that the kernel put together into this one (UDP_GRO), or its own length.</summary>
    public uint SegmentSize(int i)
    {
        // struct cmsghdr: u64 length, int level, int type, then the value.
        byte* control = _controls + (i * ControlSize);
        bool coalesced = _messages[i].ControlLength >= 20 && *(int*)(control + 8) == Kernel.SOL_UDP && *(int*)(control + 12) == Kernel.UDP_GRO;
        return coalesced ? *(uint*)(control + 16) : Length(i);
    }

    /// <summary>Sends the first <paramref name="count"/> received datagrams back to where they came from.</summary>
    public void SendBack(int fd, int count)
    {
        for (int i = 0; i < count; i++)
        {
            _vectors[i].Length = _messages[i].Transferred;
            _messages[i].Control = null;
            _messages[i].ControlLength = 0;
        }

        for (int sent = 0; sent < count;)
        {
            int n = Libc.sendmmsg(fd, _messages + sent, (uint)(count - sent), 0);
            sent += n > 0 ? n : 1;
        }
    }

    /// <summary>Sends all of them, full, by a connected socket.</summary>
    public int SendAll(int fd)
    {
        for (int i = 0; i < Count; i++)
        {
            _messages[i].Name = null;
            _messages[i].NameLength = 0;
        }

        return Libc.sendmmsg(fd, _messages, (uint)Count, 0);
    }
}
