using System.Buffers.Binary;

namespace Pesto.Tests.Fuzz;

/// <summary>A source of chance that costs a few instructions and gives the same for the same seed, everywhere and for ever (xorshift64*).</summary>
struct Chance(ulong seed)
{
    ulong _state = seed == 0 ? 0x9e3779b97f4a7c15 : seed;

    public ulong Next()
    {
        _state ^= _state >> 12;
        _state ^= _state << 25;
        _state ^= _state >> 27;
        return _state * 0x2545f4914f6cdd1d;
    }

    /// <summary>From 0 up to, and without, the limit.</summary>
    public int Below(int limit) => (int)((Next() >> 33) % (ulong)limit);

    public bool OneIn(int times) => Below(times) == 0;

    public T Of<T>(ReadOnlySpan<T> values) => values[Below(values.Length)];
}

/// <summary>Bytes that become other bytes, little by little, in a buffer that is used again.</summary>
sealed class Bytes(int capacity)
{
    static readonly ulong[] Telling =
    [
        0, 1, 2, 3, 4, 5, 7, 8, 10, 15, 16, 17, 31, 32, 55, 56, 57, 63, 64, 65, 127, 128, 129, 136, 137, 254, 255, 256, 257, 1023, 1024, 1025, 4095, 4096,
        32767, 32768, 65534, 65535, 65536, 65537, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 0x6261736c3a630000,
    ];

    readonly byte[] _buffer = new byte[capacity];

    public int Length { get; private set; }

    public Span<byte> Span => _buffer.AsSpan(0, Length);

    public void Set(ReadOnlySpan<byte> bytes)
    {
        Length = Math.Min(bytes.Length, _buffer.Length);
        bytes[..Length].CopyTo(_buffer);
    }

    public void Append(ReadOnlySpan<byte> bytes)
    {
        int taken = Math.Min(bytes.Length, _buffer.Length - Length);
        bytes[..taken].CopyTo(_buffer.AsSpan(Length));
        Length += taken;
    }

    /// <summary>Makes one to eight changes.</summary>
    /// <param name="others">What pieces may be taken from.</param>
    public void Change(ref Chance chance, IReadOnlyList<byte[]> others)
    {
        for (int changes = 1 + chance.Below(chance.OneIn(3) ? 8 : 2); changes > 0; changes--)
            ChangeOnce(ref chance, others);
    }

    void ChangeOnce(ref Chance chance, IReadOnlyList<byte[]> others)
    {
        int at = chance.Below(Length + 1);
        Span<byte> rest = _buffer.AsSpan(at, Length - at);
        switch (chance.Below(9))
        {
            case 0 when rest.Length > 0:
                rest[0] ^= (byte)(1 << chance.Below(8));
                break;
            case 1 when rest.Length > 0:
                rest[0] = (byte)chance.Next();
                break;
            case 2 when rest.Length > 0:
                rest[0] = (byte)chance.Of<ulong>(Telling);
                break;
            case 3 when rest.Length >= 2:
                BinaryPrimitives.WriteUInt16BigEndian(rest, (ushort)chance.Of<ulong>(Telling));
                break;
            case 4 when rest.Length >= 4:
                BinaryPrimitives.WriteUInt32BigEndian(rest, (uint)chance.Of<ulong>(Telling));
                break;
            case 5:
                Length = at;
                break;
            case 6:
                int gone = Math.Min(chance.Below(64), rest.Length);
                rest[gone..].CopyTo(rest);
                Length -= gone;
                break;
            case 7:
                Insert(at, rest[..Math.Min(1 + chance.Below(64), rest.Length)].ToArray());
                break;
            default:
                byte[] other = others[chance.Below(others.Count)];
                int from = chance.Below(other.Length + 1);
                Insert(at, other.AsSpan(from, Math.Min(chance.OneIn(4) ? other.Length : 64, other.Length - from)));
                break;
        }
    }

    void Insert(int at, ReadOnlySpan<byte> piece)
    {
        int room = Math.Min(piece.Length, _buffer.Length - Length);
        _buffer.AsSpan(at, Length - at).CopyTo(_buffer.AsSpan(at + room));
        piece[..room].CopyTo(_buffer.AsSpan(at));
        Length += room;
    }
}
