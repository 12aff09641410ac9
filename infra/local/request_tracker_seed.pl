# Makes a fresh RT what docs/helpdesks/request_tracker.md makes of it by hand.
# perl request_tracker_seed.pl SCRIP TOKENS: the Scrip's file, and where the tokens go.

use strict;
use warnings;
use lib '/usr/share/request-tracker5/lib', '/usr/local/share/request-tracker5/lib';
use RT -init;

my ($scrip_file, $tokens_file) = @ARGV;
my $system = RT->SystemUser;

sub made {
    my ($object, @fields) = @_;
    my ($id, $words) = $object->Create(@fields);
    die ref($object) . ": $words\n" unless $id;
    return $object;
}

sub granted {
    my ($to, $where, @rights) = @_;
    for my $right (@rights) {
        my ($ok, $words) = $to->PrincipalObj->GrantRight(Right => $right, Object => $where);
        die "$right: $words\n" unless $ok;
    }
}

my %on = (ticket => 'RT::Queue-RT::Ticket', message => 'RT::Queue-RT::Ticket-RT::Transaction');
for (['Channel', 'ticket'], ['Category', 'ticket'], ['Reference', 'ticket'],
     ['ExternalId', 'ticket'], ['MessageId', 'message']) {
    my ($name, $what) = @$_;
    my $field = made(RT::CustomField->new($system),
        Name => $name, Type => 'FreeformSingle', LookupType => $on{$what});
    my ($ok, $words) = $field->AddToObject(RT::Queue->new($system));    # no queue: all of them
    die "$name: $words\n" unless $ok;
}

my $queue = RT::Queue->new($system);
$queue->Load('General');
my @work = qw(SeeQueue ShowTicket ShowTicketComments CreateTicket ReplyToTicket CommentOnTicket
              ModifyTicket);
open my $tokens, '>', $tokens_file or die "$tokens_file: $!\n";
for (['askonce', 'AskOnce', ['ModifyCustomField'], ['AdminUsers']],
     ['alice', 'Alice Agent', ['OwnTicket', 'DeleteTicket'], []]) {
    my ($name, $called, $more, $everywhere) = @$_;
    my $password = join '', map { chr 97 + rand 26 } 1 .. 24;
    my $user = made(RT::User->new($system), Name => $name, RealName => $called, Privileged => 1,
        EmailAddress => "$name\@rt.example", Password => $password);
    granted($user, $queue, @work, @$more);
    granted($user, RT->System, 'SeeCustomField', @$everywhere);
    my ($id, $words, $token) =
        RT::AuthToken->new($system)->Create(Owner => $user->Id, Description => 'local');
    die "token of $name: $words\n" unless $id;
    print $tokens "$name $token\n$name/password $password\n";
}
close $tokens or die "$tokens_file: $!\n";

open my $file, '<:encoding(UTF-8)', $scrip_file or die "$scrip_file: $!\n";
my $code = do { local $/; <$file> };
made(RT::Scrip->new($system),
    Queue => 0, Description => 'AskOnce', Stage => 'TransactionCreate', Template => 'Blank',
    ScripCondition => 'On Transaction', ScripAction => 'User Defined',
    CustomPrepareCode => 'return 1;', CustomCommitCode => $code);
